"""A Django project with an engine, for the tests."""
