"""Integrations with frameworks. Each module imports the framework that it is named after; no other module of the package does."""
