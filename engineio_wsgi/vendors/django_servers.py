"""What is inside Django's ``runserver``. Does not import Django, which may not be installed.

Relies on: ``wsgi.input`` being a ``LimitedStream``, whose ``_read`` is the method of the connection's buffered reader.
"""

from __future__ import annotations

__all__ = ["reader_behind"]


def reader_behind(body: object) -> object:
    """The connection's buffered reader behind a ``wsgi.input``; any other ``wsgi.input`` itself."""
    return getattr(getattr(body, "_read", None), "__self__", body)
