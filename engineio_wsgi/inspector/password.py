"""Checks a password that comes by HTTP Basic authentication (RFC 7617). Knows no pages."""

from __future__ import annotations

import hashlib
import hmac

from werkzeug.wrappers import Request

from engineio_wsgi.errors import ConfigurationError

__all__ = ["Password"]

REALM = "engineio-wsgi inspector"


class Password:
    """Allows requests with the right password: ``Inspector(server, allow=Password("…"))``. The user's name does not matter.

    The password goes over the wire with each request, so use it over HTTPS, or on this machine.

    Args:
        text: the password.

    Raises:
        ConfigurationError: it is empty.
    """

    #: the header that makes a browser ask for a user and a password
    challenge = ("WWW-Authenticate", f'Basic realm="{REALM}", charset="UTF-8"')

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text:
            raise ConfigurationError("a password is a str of one character at least")
        self._digest = _digest(text)

    def __repr__(self) -> str:
        return "<Password>"

    def __call__(self, request: Request) -> bool:
        """Whether a request comes with the password. Takes the same time for every wrong password."""
        given = request.authorization
        text = (given.password if given is not None and given.type == "basic" else None) or ""
        return hmac.compare_digest(_digest(text), self._digest)


def _digest(text: str) -> bytes:
    # of the same length for all passwords, so that the comparison does not tell the length
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
