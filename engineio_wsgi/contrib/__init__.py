"""Integrations with frameworks. Each imports the framework that it is named after, and nothing else does."""
