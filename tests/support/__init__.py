"""Helpers of all suites: servers under test, and clients that can violate the protocol."""
