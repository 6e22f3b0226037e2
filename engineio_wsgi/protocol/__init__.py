"""Bytes to packets and messages, and back. Nothing in here does I/O or looks at a clock."""
