"""A WebTransport session that a client asks for, in the environ of its request; what admits the request gets the session."""

from __future__ import annotations

from collections.abc import Callable
from wsgiref.types import WSGIEnvironment

from engineio_wsgi.http3.ports import WebTransportSession

__all__ = ["OFFER", "SessionOffer", "offer_in"]

#: key of an environ: the `SessionOffer` of a request for a session
OFFER = "engineio.webtransport"


class SessionOffer:
    """The session of one request, which the application takes by :meth:`admit`, or leaves."""

    __slots__ = ("serve",)

    def __init__(self) -> None:
        #: called with the session once the client has been told that it is open; ``None`` if the application has not taken it
        self.serve: Callable[[WebTransportSession], object] | None = None

    def admit(self, serve: Callable[[WebTransportSession], object]) -> None:
        """Take the session, unless what is around the application refuses the request: ``serve(session)`` is called then."""
        self.serve = serve


def offer_in(environ: WSGIEnvironment) -> SessionOffer | None:
    """The offer in an environ; ``None`` for any other request."""
    offer: SessionOffer | None = environ.get(OFFER)
    return offer
