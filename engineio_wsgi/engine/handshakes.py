"""Handshakes: decides whether a client gets a session, and makes the session.

Owns the order in which quotas, the application and `generate_id` are asked. It must not know how a response is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from wsgiref.types import WSGIEnvironment

from engineio_wsgi.engine.admission import CheckedRequest, ask_application
from engineio_wsgi.engine.advice import Advice
from engineio_wsgi.engine.hooks import Hooks
from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.errors import ErrorCode, RequestRefused
from engineio_wsgi.http.policies.cookies import session_cookie
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports.jsonp import JSONPTransport
from engineio_wsgi.transports.polling import PollingTransport

__all__ = ["INITIAL", "Handshakes"]

logger = logging.getLogger("engine")

#: key of an environ: the request is an admitted handshake
INITIAL = "engineio.initial"


class Handshakes:
    """The handshakes of one server."""

    def __init__(self, registry: Registry, hooks: Hooks, advice: Advice) -> None:
        self._registry = registry
        self._hooks = hooks
        self._advice = advice

    def admit(self, environ: WSGIEnvironment) -> str:
        """Decide about a handshake, and return the id of the new session. Blocks as long as the application does.

        Raises:
            RequestRefused: the client gets no session.
        """
        self._registry.check_handshake(environ.get("REMOTE_ADDR"))
        sid = self._hooks.admit(environ)
        environ[INITIAL] = True
        worker_id = self._registry.worker_id
        return worker_id + sid if self._registry.in_cluster and not sid.startswith(worker_id) else sid

    def ask_application(self, environ: WSGIEnvironment) -> str:
        """Ask ``allow_request``, then ``generate_id``; returns the id. This is what the hook ``admit`` does by default.

        Raises:
            RequestRefused: ``allow_request`` refused, or ``generate_id`` failed or returned an id that cannot be used.
        """
        allow_request = self._registry.options.allow_request
        if allow_request is not None:
            ask_application(allow_request, self._hooks.request_of(environ))
        if self._hooks.has_own_ids():
            return self._registry.new_id()
        try:
            sid: object = self._hooks.generate_id(self._hooks.request_of(environ))
        except RequestRefused:
            raise
        except Exception as error:
            raise _bad_id(error) from error
        if not isinstance(sid, str) or not sid or sid in self._registry.sessions:
            raise _bad_id(ValueError(f"generate_id must return a new, non-empty str; it returned {type(sid).__name__}"))
        return sid

    def open_polling(self, environ: WSGIEnvironment, checked: CheckedRequest) -> tuple[PollingTransport, list[tuple[str, str]]]:
        """Open a session over polling. Returns its transport, and the headers that the response needs.

        Raises:
            RequestRefused: see :meth:`admit`.
        """
        session = self.new_session(self.admit(environ), checked, environ)
        limit = self._registry.options.max_http_buffer_size
        meter = self._registry.observers.meter("polling")
        transport: PollingTransport
        if "j" in checked.query:
            transport = JSONPTransport(checked.protocol, limit, meter)
        else:
            transport = PollingTransport(checked.protocol, limit, "b64" not in checked.query, meter)
        may_upgrade = self._advice.check_can_upgrade(environ, self._registry.options.transports)
        self._registry.open(session, transport, may_upgrade)
        return transport, self.cookies(session.id)

    def open_unasked(self, address: str | None, environ: Callable[[], WSGIEnvironment]) -> PollingTransport | None:
        """Open a session of revision 4 over polling, if nobody has to be asked for it and no quota counts it.

        Args:
            address: the client's.
            environ: makes the environ of the handshake.

        Returns:
            Its transport; ``None`` if the handshake has to be admitted, or is to be refused. Nothing has happened then.
        """
        registry = self._registry
        if not (registry.opens_freely and self._hooks.ask_nobody() and "polling" in registry.options.transports):
            return None
        options = registry.options
        if options.allow_request is not None or options.cookie is not None:
            return None
        session = Session(registry, registry.new_id(), 4, address)
        session.present_as(self._hooks.make_socket(session, environ))
        transport = PollingTransport(4, options.max_http_buffer_size, True, registry.observers.meter("polling"))
        registry.open(session, transport, may_upgrade=True)
        return transport

    def cookies(self, sid: str) -> list[tuple[str, str]]:
        """The header that sets the session cookie, if the option ``cookie`` asks for one."""
        cookie = self._registry.options.cookie
        return [] if cookie is None else [("Set-Cookie", session_cookie(cookie, sid))]

    def new_session(self, sid: str, checked: CheckedRequest, environ: WSGIEnvironment) -> Session:
        """A session that is not open yet, with its `Socket`."""
        session = Session(self._registry, sid, checked.protocol, environ.get("REMOTE_ADDR"))
        session.present_as(self._hooks.make_socket(session, environ))
        return session


def _bad_id(error: Exception) -> RequestRefused:
    logger.error("generate_id failed; the handshake is refused", exc_info=error)
    return RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "ID_GENERATION_ERROR", "error": error})
