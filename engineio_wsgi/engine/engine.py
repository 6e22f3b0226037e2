"""The engine: a WSGI application that checks a request, finds or makes its session, and answers.

Owns the way of a request through the middlewares to its session. A middleware sees what the client gets, upgrades included. The
engine must not know that there are other workers: their requests are sorted out by `worker.Worker`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.datastructures import Headers

from engineio_wsgi.engine.admission import CheckedRequest, RequestKind, check_request
from engineio_wsgi.engine.advice import Advice
from engineio_wsgi.engine.handshakes import INITIAL, Handshakes
from engineio_wsgi.engine.hooks import ADDED_HEADERS, Hooks
from engineio_wsgi.engine.lane import EngineLane, WSGIMiddleware
from engineio_wsgi.engine.refusals import Refusals
from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.engine.resumption import Resumption
from engineio_wsgi.engine.upgrades import Upgrades
from engineio_wsgi.engine.webtransports import WebTransports, add_query
from engineio_wsgi.errors import PayloadTooLarge, RequestRefused
from engineio_wsgi.handoff.upgrades import upgrade_of
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.http.navigation import explain_address, is_navigation
from engineio_wsgi.http.policies.cors import OriginPolicy
from engineio_wsgi.http.policies.hosts import HostPolicy
from engineio_wsgi.http.response import Response, finish, refused
from engineio_wsgi.http.wsgi_call import call
from engineio_wsgi.http3.offer import OFFER, SessionOffer, offer_in
from engineio_wsgi.http3.ports import WebTransportSession
from engineio_wsgi.options.options import Options
from engineio_wsgi.runtime.observer import EngineCall
from engineio_wsgi.transports.polling import PollingTransport
from engineio_wsgi.transports.webtransport import REFUSED

__all__ = ["Engine", "WSGIMiddleware"]


class Engine:
    """Answers the requests of one server.

    Args:
        registry: where the sessions are.
        hooks: what a framework changes.
    """

    def __init__(self, registry: Registry, hooks: Hooks) -> None:
        self._registry = registry
        self._hooks = hooks
        advice = Advice()
        #: decides about new sessions
        self.handshakes = Handshakes(registry, hooks, advice)
        self._upgrades = Upgrades(registry, self.handshakes, hooks)
        self._refusals = Refusals(registry, hooks, advice)
        self.webtransports = WebTransports(registry, self.handshakes, self._refusals)
        #: makes sessions of those that come from other processes
        self.resumption = Resumption(registry, hooks)
        self._middlewares: list[WSGIMiddleware] = []
        #: the way of polls and POSTs around the WSGI application
        self.lane = EngineLane(registry, self.handshakes)
        self._application: WSGIApplication = self._serve
        #: what the middlewares have made, the innermost first
        self._applications: list[WSGIApplication] = []
        self.configure(registry.options)

    def configure(self, options: Options) -> None:
        """Use other options. Not after the first request."""
        self._origins = OriginPolicy(options.cors)
        self._hosts = HostPolicy(options.allowed_hosts)
        self.lane.configure(self._origins, self._hosts, self._applications)

    def use(self, middleware: WSGIMiddleware) -> None:
        """Wrap the engine in a WSGI middleware, inside of those that wrap it already."""
        self._middlewares.append(middleware)
        application: WSGIApplication = self._serve
        self._applications = []
        for wrap in reversed(self._middlewares):
            application = wrap(application)
            self._applications.append(application)
        self._application = application
        self.lane.configure(self._origins, self._hosts, self._applications)

    def open_lane(self, handler: WebSocketHandler, environ: WSGIEnvironment) -> None:
        """Serve later requests like this one, which has been accepted, over the lane."""
        if self.lane.is_open:
            handler.open_lane(self.lane, environ, self._origins.headers(environ))

    # -- ways in

    def handle_request(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request: a WSGI application. Blocks as long as a poll has to wait."""
        if environ.get("wsgi.websocket") is not None:
            return self.handle_upgrade(environ, start_response)
        if "HTTP_UPGRADE" in environ and (upgrade := upgrade_of(environ)) is not None:
            return upgrade.serve(self.handle_upgrade, start_response)
        return self.answer(environ, start_response)

    def answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """As :meth:`handle_request`, for a request that cannot become a WebSocket: its connection is not here."""
        if self._registry.observers.of_answers:
            # `Observer.answer` passes on what it was given
            return self._registry.observers.answer(environ, start_response, cast("EngineCall", self._application))
        return self._application(environ, start_response)

    def handle_upgrade(self, environ: WSGIEnvironment, start_response: StartResponse | None) -> Iterable[bytes]:
        """Serve the WebSocket in the environ.

        Blocks until the WebSocket is closed, unless its connection can be taken over.

        Args:
            start_response: ``None`` where no response can be sent, because the WebSocket was accepted already.
        """
        if self._registry.observers.of_answers:
            return self._registry.observers.answer(environ, start_response, self._handle_upgrade)
        return self._handle_upgrade(environ, start_response)

    def _handle_upgrade(self, environ: WSGIEnvironment, start_response: StartResponse | None) -> Iterable[bytes]:
        answered = call(self._application, environ) if self._middlewares else self._answer(environ)
        return self._upgrades.carry_out(answered, environ, start_response)

    def handle_webtransport(self, session: WebTransportSession) -> None:
        """Serve a WebTransport session that another library has accepted. Blocks as long as the middlewares do."""
        environ = dict(session.environ)
        offer = environ[OFFER] = SessionOffer()
        add_query(environ)
        answered = call(self.answer, environ)
        if offer.serve is not None and answered.status.startswith("200"):
            offer.serve(session)
        else:
            session.close(REFUSED, answered.body.decode("utf-8", "replace"))

    # -- inside the middlewares

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request: the innermost application."""
        response = self._answer(environ)
        start_response(response.status, response.headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def _answer(self, environ: WSGIEnvironment) -> Response:
        """The response to a request, refusals included."""
        try:
            response = self._respond(environ)
        except RequestRefused as refusal:
            self._refusals.report(refusal, environ)
            response = explain_address(refusal) if is_navigation(environ, refusal) else refused(refusal)
        except PayloadTooLarge as error:
            self._refusals.report_too_large(error, environ)
            response = refused(error)
        response.headers.extend(self._origins.headers(environ))
        headers = self._finish_headers(response.headers, environ)
        return response if headers is response.headers else Response(response.status, headers, response.body)

    def _respond(self, environ: WSGIEnvironment) -> Response:
        self._hosts.check(environ)
        if environ["REQUEST_METHOD"] == "OPTIONS":
            return self._origins.preflight(environ)
        self._origins.check(environ)
        offer = offer_in(environ)
        if offer is not None:
            return self.webtransports.admit(environ, offer)
        websocket: object = environ.get("wsgi.websocket")
        checked = check_request(environ, self._registry.options, self._registry.sessions, websocket is not None)
        if checked.kind is RequestKind.POLL:
            return self._finish(_polling(checked).poll(environ), environ)
        if checked.kind is RequestKind.POST:
            return self._finish(_polling(checked).post(environ), environ)
        if websocket is not None:
            return self._upgrades.admit(environ, checked, websocket)
        transport, headers = self.handshakes.open_polling(environ, checked)
        response = self._finish(transport.poll(environ), environ)
        response.headers.extend(headers)
        return response

    def _finish(self, response: Response, environ: WSGIEnvironment) -> Response:
        return finish(response, environ, self._registry.options.http_compression)

    def _finish_headers(self, headers: list[tuple[str, str]], environ: WSGIEnvironment) -> list[tuple[str, str]]:
        """Add what hooks have added, and let the listeners of ``initial_headers`` and ``headers`` change the result."""
        if ADDED_HEADERS in environ:
            headers.extend(environ.pop(ADDED_HEADERS))
        events = self._registry.events
        if not events.edits_headers:
            return headers
        initial = INITIAL in environ and "initial_headers" in events
        if not initial and "headers" not in events:
            return headers
        editable = Headers(headers)
        request = self._hooks.request_of(environ)
        if initial:
            events.emit("initial_headers", editable, request)
        events.emit("headers", editable, request)
        return editable.to_wsgi_list()


def _polling(checked: CheckedRequest) -> PollingTransport:
    """The transport of a session that polls."""
    transport = checked.session.transport if checked.session is not None else None
    assert isinstance(transport, PollingTransport)
    return transport
