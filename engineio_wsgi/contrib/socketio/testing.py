"""A Socket.IO client for tests: it goes the way of a real one, without a port.

Flask-SocketIO's own ``test_client`` calls the handlers with mocks in the place of the engine, and refuses managers of several
workers. This client's bytes go through the application's middlewares and the engine.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Self
from wsgiref.types import WSGIApplication

from socketio import packet
from socketio.exceptions import ConnectionError as NotConnected

from engineio_wsgi import testing
from engineio_wsgi.contrib.socketio.untyped import Foreign, Value
from engineio_wsgi.runtime.deadline import Deadline

__all__ = ["Client", "Event"]

#: seconds in which the server has to do its part
PATIENCE = 5.0


class Event(NamedTuple):
    """An event that the server has emitted.

    Attributes:
        name: of the event.
        args: its arguments.
        namespace: where it was emitted.
        id: of the acknowledgement that the server waits for; ``None`` if it waits for none.
    """

    name: str
    args: list[Value]
    namespace: str = "/"
    id: int | None = None


class Client:
    """One Socket.IO client of a WSGI application. Connects at once.

    For one thread, with gevent or without: the server's part runs while the client waits.

    Args:
        app: the application as it is deployed: a Flask application with `SocketIO`, ``socketio.WSGIApp(…)``, ….
        namespace: where it connects; see also :meth:`connect`.
        auth: what the ``connect`` handler gets: a dict, or ``None``.
        path: the server's.
        options: of ``engineio_wsgi.testing.Client``: ``transport``, ``headers``, ``cookies``, ``query``, ….

    Raises:
        Refused: the handshake was refused.
        socketio.exceptions.ConnectionError: the ``connect`` handler refused, or there is no such namespace.

    Example::

        with Client(app, auth={"token": "secret"}) as client:
            assert client.call("join", "lobby") == ["lobby"]
            client.emit("say", "hello")
            assert client.receive() == Event("said", ["hello"])
    """

    __test__ = False

    def __init__(self, app: WSGIApplication, namespace: str = "/", auth: Value = None, path: str = "/socket.io/",
                 **options: Value) -> None:
        self._engine = testing.Client(app, path, **options)
        self._received: deque[Foreign] = deque()
        self._last_id = 0
        #: the client's ids by the namespaces that it is connected to
        self.sids: dict[str, str] = {}
        try:
            self.connect(namespace, auth)
        except BaseException:
            self._engine.close()
            raise

    @property
    def sid(self) -> str:
        """The id in the default namespace."""
        return self.sids["/"]

    def connect(self, namespace: str, auth: Value = None) -> None:
        """Connect to a further namespace. Blocks until the server has answered.

        Raises:
            socketio.exceptions.ConnectionError: it refused.
        """
        self._send(packet.Packet(packet.CONNECT, namespace=namespace, data=auth))
        answer = self._wait_for(namespace, (packet.CONNECT, packet.CONNECT_ERROR), None, PATIENCE)
        if answer.packet_type == packet.CONNECT_ERROR:
            raise NotConnected(answer.data["message"])
        self.sids[namespace] = answer.data["sid"]

    def emit(self, event: str, *args: Value, namespace: str = "/") -> None:
        """Send an event; bytes among the arguments are sent as attachments."""
        self._send(packet.Packet(packet.EVENT, namespace=namespace, data=[event, *args]))

    def call(self, event: str, *args: Value, namespace: str = "/", timeout: float = PATIENCE) -> list[Value]:
        """Send an event, and return what its handler returns. Blocks until then.

        Raises:
            TimeoutError: there was no acknowledgement within ``timeout`` seconds.
        """
        self._last_id += 1
        self._send(packet.Packet(packet.EVENT, namespace=namespace, id=self._last_id, data=[event, *args]))
        answer: list[Value] = self._wait_for(namespace, (packet.ACK, packet.BINARY_ACK), self._last_id, timeout).data
        return answer

    def receive(self, timeout: float = PATIENCE) -> Event:
        """The next event. Blocks until there is one.

        Raises:
            TimeoutError: there was none within ``timeout`` seconds.
            SocketClosed: the session has ended.
        """
        found = self._wait_for(None, (packet.EVENT, packet.BINARY_EVENT), None, timeout)
        return Event(found.data[0], found.data[1:], found.namespace or "/", found.id)

    def acknowledge(self, event: Event, *args: Value) -> None:
        """Answer an event for which the server waits."""
        self._send(packet.Packet(packet.ACK, namespace=event.namespace, id=event.id, data=list(args)))

    def disconnect(self, namespace: str = "/") -> None:
        """Leave a namespace."""
        del self.sids[namespace]
        self._send(packet.Packet(packet.DISCONNECT, namespace=namespace))

    def close(self) -> None:
        """End the session, as a client does that says goodbye."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _send(self, pkt: Foreign) -> None:
        encoded = pkt.encode()
        self._engine.send(*(encoded if isinstance(encoded, list) else [encoded]))

    def _wait_for(self, namespace: str | None, kinds: tuple[int, ...], id: int | None, timeout: float) -> Foreign:
        """The next packet of one of these kinds, of a namespace (``None``: any). Those before it stay for others."""
        deadline, at = Deadline(timeout), 0
        while True:
            if at == len(self._received):
                self._received.append(self._next(deadline))
            found = self._received[at]
            if found.packet_type in kinds and namespace in (None, found.namespace or "/") and (id is None or found.id == id):
                del self._received[at]
                return found
            at += 1

    def _next(self, deadline: Deadline) -> Foreign:
        """The next packet, with its attachments."""
        received = packet.Packet(encoded_packet=self._engine.receive(deadline.left or 0.0))
        for _ in range(received.attachment_count):
            received.add_attachment(self._engine.receive(deadline.left or 0.0))
        return received
