"""The cookie with a session's id, for load balancers that read cookies. The engine itself never reads it."""

from __future__ import annotations

from werkzeug.http import dump_cookie

from engineio_wsgi.options.values import Cookie

__all__ = ["session_cookie"]


def session_cookie(cookie: Cookie, sid: str) -> str:
    """The value of the ``Set-Cookie`` header (RFC 6265 section 4.1) that names ``sid``."""
    value = dump_cookie(
        cookie.name,
        sid,
        max_age=cookie.max_age,
        path=cookie.path,
        domain=cookie.domain,
        secure=cookie.secure,
        httponly=cookie.httponly,
        samesite=cookie.samesite,
        expires=cookie.expires,
    )
    # werkzeug 3.0 knows neither of these
    if cookie.partitioned:
        value += "; Partitioned"
    return value if cookie.priority is None else f"{value}; Priority={cookie.priority}"
