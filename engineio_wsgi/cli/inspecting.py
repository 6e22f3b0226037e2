"""``serve --inspector PATH``: the inspector of an application, and its password."""

from __future__ import annotations

import os
import secrets
from wsgiref.types import WSGIApplication

from engineio_wsgi.errors import ConfigurationError, UsageError
from engineio_wsgi.inspector import Inspector, Password
from engineio_wsgi.server import servers

__all__ = ["VARIABLE", "choose_password", "with_inspector"]

#: the password, for the workers as well
VARIABLE = "ENGINEIO_INSPECTOR_PASSWORD"
#: random bytes of a generated password
BYTES = 15


def choose_password() -> str | None:
    """Set the password of this process and of its workers, unless the environment has one.

    Returns:
        What to print: a generated password; ``None`` if the environment has one.
    """
    if os.environ.get(VARIABLE):
        return None
    os.environ[VARIABLE] = password = secrets.token_urlsafe(BYTES)
    return password


def with_inspector(application: WSGIApplication, path: str) -> WSGIApplication:
    """``application`` with the inspector of its only server under ``path``. Takes the password out of the environment.

    Raises:
        ConfigurationError: it has no server or several, or an inspector of its own; or ``path`` is no path.
    """
    password = os.environ.pop(VARIABLE)
    found = list(servers)
    if len(found) != 1:
        raise ConfigurationError(f"--inspector expects an application with one Server; this one has {len(found)}. Mount an "
                                 "Inspector for each in the application")
    try:
        inspector = Inspector(found[0], allow=Password(password))
    except UsageError:
        raise ConfigurationError("--inspector: the application has an inspector of its own") from None
    return inspector.mount(application, path)
