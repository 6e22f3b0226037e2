"""Our HTTP handler with gunicorn's settings, environ, hooks and access log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Protocol
from wsgiref.types import WSGIEnvironment

from engineio_wsgi.gunicorn.heads import HeadReader, Reading, is_in, preface_size
from engineio_wsgi.http.connection import HttpConnection
from engineio_wsgi.http.handler import UNANSWERED
from engineio_wsgi.http.lane_ports import LaneEngine
from engineio_wsgi.http.request_head import InvalidRequest, RequestHead
from engineio_wsgi.http.response_writer import ExceptionInfo
from engineio_wsgi.http.roster import RosteredHandler
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.vendors.gunicorn_workers import GunicornSettings, writes_access_log

__all__ = ["GunicornHandler", "ServingWorker"]


class GunicornLog(Protocol):
    """What the handler needs of gunicorn's ``Logger``."""

    def access(self, resp: object, req: object, environ: WSGIEnvironment, request_time: timedelta, /) -> object:
        """Write a line to the access log. ``req`` may be the headers of the request as pairs."""
        ...

    def exception(self, msg: str, /) -> object:
        """Log the exception that is being handled, with its traceback."""
        ...


class ServingWorker(Protocol):
    """What the handler needs of the worker whose server it serves."""

    #: gunicorn's settings
    cfg: GunicornSettings
    #: gunicorn's logger
    log: GunicornLog
    #: whether the worker goes on
    alive: bool
    #: reads the heads of requests
    heads: HeadReader

    def count_request(self) -> None:
        """Count one request."""
        ...


class GunicornHandler(RosteredHandler):
    """Our handler with gunicorn's settings, environ and access log."""

    #: the methods that it overrides have counterparts in it for the lane
    lane = True

    #: key in an environ: the address of the proxy that has named its client; ``UNIX`` if it is connected to a Unix socket
    PEER, UNIX = "engineio.peer", "unix"

    #: what the connection's last request said, and what its proxy said of the client
    _reading: Reading | None = None
    _proxied: dict[str, object] | None = None
    #: the PROXY header that has just been read; ``None`` before it has been looked for
    _preface: bytes | None = None
    _trusted: bool | None = None

    @property
    def _worker(self) -> ServingWorker:
        worker: ServingWorker = self.server.worker
        return worker

    # -- reading a request

    def _take_head(self) -> bytes:
        if self._preface is None:
            mode = self._worker.heads.proxy_mode
            # of an adopted connection, the worker that has accepted it has read the PROXY header
            self._preface = b"" if mode == "off" or self.origin else self._take_preface(mode)
        return super()._take_head()

    def _take_preface(self, mode: str) -> bytes:
        connection = self._connection
        deadline = monotonic() + self.header_timeout
        while (size := preface_size(connection.buffer, mode)) is None:
            try:
                more = connection.receive(max(deadline - monotonic(), 0))
            except TimeoutError as error:
                raise InvalidRequest("408 Request Timeout", "the PROXY header was not complete in time") from error
            if not more:
                raise ConnectionResetError("the client closed its connection before the end of a PROXY header")
            connection.keep(connection.buffer + more)
        return connection.take(size)

    def _parse(self, head: bytes) -> RequestHead:
        worker = self._worker
        if self._trusted is None:
            peer = self.origin.get(self.PEER)
            self._peer = self.client_address if peer is None else "" if peer == self.UNIX else (peer, 0)
            self._trusted = is_in(self._peer, worker.cfg.forwarded_allow_ips)
        preface, self._preface = self._preface or b"", b""
        self._reading = reading = worker.heads.read(head, self, self._peer, self._trusted, preface)
        if preface and reading.proxied:
            self._note_client(reading.proxied)
        return reading.request

    def _note_client(self, said: Mapping[str, object]) -> None:
        """Note the client that a PROXY header names. A proxy's own health check names none: that is the proxy's."""
        self._proxied = {"PROXY_PROTOCOL": said["proxy_protocol"]}
        if said["client_addr"] is not None:
            self._proxied.update(PROXY_ADDR=said["proxy_addr"], PROXY_PORT=str(said["proxy_port"]))
            self._proxied[self.PEER] = self._peer[0] if isinstance(self._peer, tuple) else self.UNIX
            self.client_address = (said["client_addr"], said["client_port"])

    # -- answering it

    def handle_one_response(self) -> None:
        """Answer one request, and count it."""
        worker = self._worker
        original = None if self._reading is None else self._reading.original
        worker.count_request()
        if not worker.cfg.keepalive:
            self.close_connection = True
        environ = self.environ
        super().handle_one_response()
        if self._detached is not None and not self.handed_off and not self.overdue:
            self.log_request()
        if original is not None:
            try:
                worker.cfg.post_request(worker, original, environ, self._as_response())
            except Exception:
                worker.log.exception("Exception in post_request hook")

    def run_application(self) -> None:
        """Have the request answered by the application, after gunicorn's hook."""
        original = None if self._reading is None else self._reading.original
        if original is not None:
            self._worker.cfg.pre_request(self._worker, original)
        super().run_application()

    def start_response(self, status: str, headers: Sequence[tuple[str, str]],
                       exc_info: ExceptionInfo | None = None) -> Callable[[bytes], None]:
        """PEP 3333's ``start_response``.

        A client that a stopping worker refuses reaches the next worker by a new connection: so this one is closed.
        """
        if status.startswith("503") and not self._worker.alive:
            self.close_connection = True
        return super().start_response(status, headers, exc_info)

    def open_lane(self, engine: LaneEngine, environ: WSGIEnvironment, headers: list[tuple[str, str]]) -> None:
        """Serve later requests like the present one over the lane, unless a setting or a subclass has to see them.

        The hooks ``pre_request`` and ``post_request``, and the access log, get objects that the lane does not make.
        """
        original = None if self._reading is None else self._reading.original
        if original is None and not writes_access_log(self._worker.log):
            super().open_lane(engine, environ, headers)

    @property
    def _logs_lane(self) -> bool:
        return False

    def on_lane_request(self) -> None:
        """A request has been read that goes over the lane. Count it."""
        super().on_lane_request()
        self._worker.count_request()

    def _end_connection(self, connection: HttpConnection) -> None:
        detached = self._detached
        if detached is not None and not detached.secure and not detached.closed:
            self.server.pool.keep_place(detached)
        super()._end_connection(connection)

    def get_environ(self) -> WSGIEnvironment:
        """The environ of a request, with what the settings, and the proxies that they trust, add to it."""
        environ = super().get_environ()
        environ["RAW_URI"] = self.path
        if self._reading is not None and self._reading.additions:
            environ.update(self._reading.additions)
        if self._proxied is not None:
            environ.update(self._proxied)
        return environ

    @property
    def lasting_values(self) -> dict[str, object]:
        """What the environs of all requests of this connection have in common, with what a PROXY header has said."""
        return {**super().lasting_values, **(self._proxied or {})}

    # -- the log

    def _as_response(self) -> SimpleNamespace:
        """The response in the form that gunicorn's loggers and hooks expect."""
        if self.overdue:
            status = UNANSWERED
        else:
            status = "101 Switching Protocols" if self._detached is not None else self._orig_status or "000"
        return SimpleNamespace(status=status, headers=self.response_headers or (), sent=self.response_length,
                               headers_sent=self.headers_sent, response_length=self.response_length)

    def log_request(self) -> None:
        """Write a line to gunicorn's access log, in its format; for a WebSocket when it begins."""
        seconds = max(self.time_finish - self.time_start, 0) if self.time_finish else 0
        self._worker.log.access(self._as_response(), self.headers.items(), self.environ, timedelta(seconds=seconds))
