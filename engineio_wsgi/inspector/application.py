"""`Inspector`: the WSGI application with the page, and the Engine.IO session over which the page gets its data.

Owns the decision whether a request is allowed, and the messages between the page and this worker.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from threading import Lock
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.wrappers import Request

from engineio_wsgi.engine.admission import ask_application
from engineio_wsgi.errors import ConfigurationError, RequestRefused
from engineio_wsgi.http.response import Response
from engineio_wsgi.inspector.mount import Mount
from engineio_wsgi.inspector.pages import line, page, redirect
from engineio_wsgi.inspector.password import Password
from engineio_wsgi.inspector.question import Close, read_question
from engineio_wsgi.inspector.recorder import Recorder
from engineio_wsgi.inspector.worker_view import WorkerView
from engineio_wsgi.inspector.workers import Workers
from engineio_wsgi.log import log_violation
from engineio_wsgi.options.functions import check_function
from engineio_wsgi.server import Server
from engineio_wsgi.session.socket import Socket

__all__ = ["Inspector"]

logger = logging.getLogger("engine")

#: the path of the page's own sessions, below that of the page
LIVE_PATH = "/live"
#: bytes of a question
MAX_QUESTION = 65_536


class Inspector:
    """A WSGI application with a page that shows the current sessions of all workers of a server.

    Its users see all clients, and can close their sessions, so ``allow`` is required: it decides who may use the page. Make the
    inspector before the server has sessions. The server counts the messages of each session while a page is open.

    Args:
        server: the server whose sessions are shown.
        allow: ``callable(request) -> bool``, or raises :class:`Forbidden`, as the option ``allow_request``. It gets a werkzeug
            request, may block, and is asked for the page, for each of its files, and for each session of the page. A
            :class:`Password` asks the browser for one.
        payloads: whether the packets of a watched session are shown with the beginning of their data.

    Raises:
        ConfigurationError: ``allow`` is not callable, or its body would never run.
        UsageError: the server has an inspector already, or sessions.

    Example::

        inspector = Inspector(server, allow=Password("a long one"))
        app = inspector.mount(server.wrap(flask_app), "/inspector")
    """

    def __init__(self, server: Server, *, allow: Callable[[Request], object], payloads: bool = False) -> None:
        if not callable(allow):
            raise ConfigurationError(f"allow: expected a callable that decides about a request; got {allow!r}")
        check_function("allow", allow)
        self._allow = allow
        self._payloads = payloads
        recorder = Recorder(server._registry)
        server._registry.observe(recorder)
        self._workers = Workers(server, WorkerView(server._registry, recorder, payloads))
        self._inspected = server
        #: guards the two below
        self._starting = Lock()
        #: the server of the page's own sessions
        self._live: Server | None = None
        self._application: WSGIApplication | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request: a WSGI application. Blocks as long as ``allow`` does, and as a poll has to wait."""
        return (self._application or self._start())(environ, start_response)

    def mount(self, application: WSGIApplication, path: str = "/inspector") -> WSGIApplication:
        """``application`` with the inspector under ``path``.

        The engine may be inside of ``application`` or around it. It still serves polls on the fast lane, and hands connections
        over to other workers, which it cannot do behind other dispatchers.

        Raises:
            ConfigurationError: ``path`` is no path.
        """
        return Mount(application, path, self)

    def _start(self) -> WSGIApplication:
        """Make the server of the page's own sessions: at the first request, as a framework may set the options until then."""
        with self._starting:
            if self._application is None:
                options = self._inspected.options
                # only pages of the same origin, whatever the inspected server allows
                self._live = live = Server(path=LIVE_PATH, cors=None, allow_request=self._allow, cluster=options.cluster,
                                           allowed_hosts=options.allowed_hosts, max_http_buffer_size=MAX_QUESTION)
                live.on("connection", self._connected)
                self._application = live.wrap(self._serve_page)
            return self._application

    # -- the page

    def _serve_page(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        response = self._respond(environ)
        start_response(response.status, response.headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def _respond(self, environ: WSGIEnvironment) -> Response:
        try:
            ask_application(self._allow, Request(environ))
        except RequestRefused as refusal:
            return self._refuse(refusal, environ)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return line("405 Method Not Allowed", "the inspector's pages are read with GET", ("Allow", "GET, HEAD"))
        path = environ.get("PATH_INFO", "")
        return page(path) if path else redirect(environ.get("SCRIPT_NAME", "") + "/")

    def _refuse(self, refusal: RequestRefused, environ: WSGIEnvironment) -> Response:
        log_violation(logger, environ.get("REMOTE_ADDR"), "inspector", "< %s: the inspector was refused: %s",
                      environ.get("REMOTE_ADDR"), refusal.message)
        if isinstance(self._allow, Password):
            return line("401 Unauthorized", "the inspector asks for a password", Password.challenge)
        return line("403 Forbidden", f"the inspector is not for you: {refusal.message}")

    # -- the page's sessions

    def _connected(self, socket: Socket) -> None:
        socket.on("message", lambda message: self._on_message(socket, message))
        socket.send(json.dumps({"type": "hello", "path": self._inspected.options.path, "payloads": self._payloads}))

    def _on_message(self, socket: Socket, message: str | bytes) -> None:
        """Answer a question of the page. It asks the next one when it has the answer, so at most one waits."""
        try:
            asked = read_question(message)
        except ValueError:
            socket.close()
            return
        answers = self._workers.ask(message if isinstance(message, str) else message.decode())
        if isinstance(asked, Close):
            logger.info("< %s: asked the inspector to close the session %s", socket.remote_address, asked.session)
            closed = any(json.loads(text)["closed"] for text in answers.texts)
            socket.send(json.dumps({"type": "closed", "session": asked.session, "done": closed}))
            return
        # the answers are JSON already
        socket.send(f'{{"type":"look","silent":{json.dumps(answers.silent)},"workers":[{",".join(answers.texts)}]}}')
