"""A Django site with an engine."""
