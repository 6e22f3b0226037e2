"""The setting ``ENGINEIO``: the options in capitals. `options.Options` checks the values."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured

from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.options.options import Options

__all__ = ["check_settings", "options_from_settings"]

SETTING = "ENGINEIO"


def options_from_settings() -> dict[str, object]:
    """The options in ``settings.ENGINEIO``, as ``Server(**…)`` takes them.

    Raises:
        ImproperlyConfigured: an option that does not exist, or has an impossible value; the text names it.
    """
    given = getattr(settings, SETTING, {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"settings.{SETTING}: expected a dict such as {{'PING_INTERVAL': 25}}; got {given!r}")
    return {name: value for key, value in given.items() for name, value in [_option(key, value)]}


def _option(key: object, value: object) -> tuple[str, object]:
    where = f"settings.{SETTING}[{key!r}]"
    if not isinstance(key, str) or key != key.upper():
        raise ImproperlyConfigured(f"{where}: settings are in capitals, such as 'PING_INTERVAL'")
    name = key.lower()
    try:
        Options.create(**{name: value})
    except ConfigurationError as error:
        raise ImproperlyConfigured(f"{where}: {str(error).removeprefix(name + ': ')}") from None
    return name, value


def check_settings(app_configs: object, **kwargs: object) -> list[CheckMessage]:
    """Check the setting, for ``manage.py check``."""
    try:
        options_from_settings()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="engineio.E001")]
    return []
