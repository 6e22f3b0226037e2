"""The app for ``INSTALLED_APPS``: it brings the command ``runengineio`` and the check of the settings."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from engineio_wsgi.contrib.django.conf import check_settings

__all__ = ["EngineIOConfig"]


class EngineIOConfig(AppConfig):  # type: ignore[misc]
    """``INSTALLED_APPS = [..., "engineio_wsgi.contrib.django"]``."""

    name = "engineio_wsgi.contrib.django"
    label = "engineio"
    verbose_name = "Engine.IO"

    def ready(self) -> None:
        """Called by Django when all apps are loaded."""
        checks.register(check_settings)
