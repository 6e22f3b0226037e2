"""`Server`: python-socketio's, with this engine below it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from types import MethodType

import socketio
from gevent import monkey
from socketio import packet
from socketio.pubsub_manager import PubSubManager

from engineio_wsgi.contrib.socketio.adapter import MAX_HTTP_BUFFER_SIZE, EngineAdapter, Hooks
from engineio_wsgi.contrib.socketio.cluster import ClusterManager
from engineio_wsgi.contrib.socketio.manager import LocalManager
from engineio_wsgi.contrib.socketio.packets import (
    RESERVED_EVENTS,
    SocketIOJson,
    SocketIOPacket,
    decode,
    dumps,
    scan,
)
from engineio_wsgi.contrib.socketio.session import SocketIOSession
from engineio_wsgi.contrib.socketio.untyped import Foreign, Value
from engineio_wsgi.errors import HasBinary, MalformedPacket
from engineio_wsgi.session.dispatcher import LISTENER_ERRORS
from engineio_wsgi.session.outgoing import Bundle

__all__ = ["Server"]

logger = logging.getLogger("engine.socketio")

#: handlers of one client's events that run at once; with more, no event of the client is read
MAX_HANDLERS = 100
#: namespaces that one client may be connected to
MAX_NAMESPACES = 100
#: how many times max_http_buffer_size the attachments of one packet may have, which wait for the last of them
ATTACHMENTS_LIMIT = 10
#: digits of the id of an acknowledgement, in `_parse_event`
MAX_ID = 16
#: what is logged if a manager of a message queue would block the event loop
UNPATCHED = ("message_queue: %s waits for its queue in the standard library, and all clients of this process wait with it; call "
             "gevent.monkey.patch_all() before any other import, or set cluster='redis://…' in place of message_queue")
#: the methods that the short ways of events pass by. If an application or a test client replaces one, it is called
REPLACEABLE = frozenset({"_handle_eio_message", "_handle_event", "_handle_event_internal", "_send_eio_packet", "_send_packet",
                         "_trigger_event"})
#: the attributes that decide which ways are taken
DECISIVE = REPLACEABLE | {"async_handlers", "manager", "packet_class"}
#: the managers that send an event for a client of this process to nobody else
OWN_MANAGERS = frozenset({LocalManager, ClusterManager})


class Server(socketio.Server):  # type: ignore[misc]  # no types
    """``socketio.Server`` on this engine: the same arguments, methods and handlers.

    The options are python-socketio's and python-engineio's; those of this engine (``allow_eio3``, ``max_buffered``,
    ``per_message_deflate``, ``cluster``, …) may be given as well, and ``trust_forwarded``: whether the proxy's
    ``X-Forwarded-Proto`` and ``X-Forwarded-Host`` count when the origin of a page is checked.

    Handlers of a client's events begin in the order in which the events arrived; one that blocks does not hold up the next
    (unless ``async_handlers=False``), but a client with 100 running handlers is not read from until one returns.

    Raises:
        ValueError: an option has an impossible value.

    Example::

        sio = Server(cors_allowed_origins="https://example.org")
        app = socketio.WSGIApp(sio, wsgi_app)
    """

    #: of the rooms; `ClusterManager` once the engine has joined a cluster
    manager: Foreign
    #: whether events are encoded and sent without the packets' class
    sends_directly = False
    #: whether events for a client of this process are sent without the manager
    _emits_directly = False
    #: whether events of the default namespace are read without it
    _takes_events = False
    #: whether handlers run in the greenlet that has read their event
    _runs_beside = False
    #: whether handlers of one event are called without `_trigger_event`
    _calls_directly = False

    def __init__(self, client_manager: Foreign = None, serializer: Foreign = "default", json: Foreign = None,
                 **kwargs: Value) -> None:
        if serializer == "default":
            # a class of its own, because python-socketio sets `json` on the class
            serializer = SocketIOPacket if json is None else type("SocketIOPacket", (SocketIOPacket,), {})
        #: what clients were refused, by the kind of the violation
        self.refusals: Counter[str] = Counter()
        #: sessions of Socket.IO 2, whose connect packets have another form
        self._old_clients: set[str] = set()
        super().__init__(client_manager=client_manager or LocalManager(), serializer=serializer, json=json, **kwargs)
        #: bytes of the attachments of one packet
        self._attachments_limit = ATTACHMENTS_LIMIT * int(kwargs.get("max_http_buffer_size", MAX_HTTP_BUFFER_SIZE))
        self.eio.hook(Hooks(self._on_worker_start, self._connect_old_client, self._count_malformed, self._take_event))
        self._has_started = False

    def _engineio_server_class(self) -> type[EngineAdapter]:
        return EngineAdapter

    def __setattr__(self, name: str, value: Value) -> None:
        """Set an attribute, which may be a method that the application replaces."""
        super().__setattr__(name, value)
        if name in DECISIVE:
            self._choose_ways()

    def __delattr__(self, name: str) -> None:
        """Delete an attribute, which may be a method that was replaced."""
        super().__delattr__(name)
        if name in DECISIVE:
            self._choose_ways()

    def _choose_ways(self) -> None:
        # equal methods are those of the same object and function
        kept = {name for name in REPLACEABLE if getattr(self, name) == MethodType(getattr(Server, name), self)}
        # whether packets are text and JSON, made as the standard library makes it
        is_plain = issubclass(self.packet_class, SocketIOPacket) and self.packet_class.json is SocketIOJson
        self.sends_directly = is_plain and {"_send_eio_packet", "_send_packet"} <= kept
        self._emits_directly = self.sends_directly and type(vars(self).get("manager")) in OWN_MANAGERS
        self._runs_beside = bool(getattr(self, "async_handlers", False)) and "_handle_event_internal" in kept
        self._takes_events = is_plain and self._runs_beside and {"_handle_eio_message", "_handle_event"} <= kept
        self._calls_directly = "_trigger_event" in kept

    def _count_malformed(self) -> None:
        self.refusals["malformed packet"] += 1

    def _on_worker_start(self) -> None:
        """The process begins to serve: reach the clients of the cluster's other workers, unless a manager was given for that."""
        self._has_started = True
        if isinstance(self.manager, PubSubManager) and not isinstance(self.manager, ClusterManager) \
                and not monkey.is_module_patched("socket"):
            logger.error(UNPATCHED, type(self.manager).__name__)
        cluster = self.eio.engine.cluster
        if cluster is None:
            return
        if type(self.manager) is LocalManager:
            if any(hasattr(LocalManager, name) for name in vars(self.manager)):
                logger.warning("a method of the manager was replaced (such as by instrument()) before the worker has joined its "
                               "cluster, and is not called: set client_manager=ClusterManager()")
            self.manager = ClusterManager()
            self.manager.set_server(self)
        if isinstance(self.manager, ClusterManager):
            self.manager.join(cluster)

    # -- sending

    def emit(self, event: str, data: Value = None, to: Value = None, room: Value = None, skip_sid: Value = None,
             namespace: str | None = None, callback: Value = None, ignore_queue: bool = False, volatile: bool = False) -> None:
        """As python-socketio's.

        Args:
            volatile: drop the event for a client whose write buffer is full. Without it, an event for one client waits for room,
                for 10 seconds at most, and one for several disconnects such a client.
        """
        if not self._has_started:
            self._join()
        room, namespace = to or room, namespace or "/"
        if self.logger.isEnabledFor(logging.INFO):
            self.logger.info("> event %r to %s [%s]", event, room or "all", namespace)
        if callback is None and skip_sid is None and self._emits_directly:
            # most events that handlers emit: to one client, which this process serves
            manager = self.manager
            socket = manager.own_session(namespace, room)
            if socket is not None:
                self.eio.send_to(socket, manager.message_of(event, data, namespace), volatile)
                return
        self._emit_by_manager(event, data, namespace, volatile, room=room, skip_sid=skip_sid, callback=callback,
                              ignore_queue=ignore_queue)

    def _emit_by_manager(self, event: str, data: Value, namespace: str, volatile: bool, **how: Value) -> None:
        if volatile:
            how["volatile"] = True  # only our managers know it
        self.manager.emit(event, data, namespace, **how)

    def _join(self) -> None:
        """Join the cluster, if there is one, before the first request: the event may be for clients of other workers."""
        engine = self.eio.engine
        if engine.options.cluster is not None:
            engine.join()

    def _send_packet(self, eio_sid: str, pkt: Foreign) -> None:
        """Send one packet. Its attachments stay with it, whoever else sends to the client."""
        if eio_sid in self._old_clients:
            pkt = self._old_form(pkt)
        encoded = pkt.encode()
        self.eio.send(eio_sid, Bundle(*encoded) if isinstance(encoded, list) else encoded)

    # -- receiving

    def _handle_eio_message(self, eio_sid: str, data: str | bytes) -> None:
        """Dispatch a message of a client.

        Raises:
            MalformedPacket: it is no packet of the protocol, and the session has to end.
        """
        pending = self._binary_packet.get(eio_sid)
        if pending is not None:
            self._add_attachment(eio_sid, pending, data)
        else:
            received = decode(self.packet_class, data)
            _RECEIVE.get(received.packet_type, _refuse)(self, eio_sid, received)

    def _add_attachment(self, eio_sid: str, pending: Foreign, data: str | bytes) -> None:
        if not isinstance(data, bytes):
            raise MalformedPacket("a text message where an attachment was expected")
        if sum(map(len, pending.attachments)) + len(data) > self._attachments_limit:
            raise MalformedPacket(f"the attachments of one packet have more than {self._attachments_limit} bytes")
        try:
            is_complete = pending.add_attachment(data)
        except (ValueError, LookupError, TypeError) as error:
            raise MalformedPacket(f"attachments that fit no placeholder: {error}") from error
        if is_complete:
            del self._binary_packet[eio_sid]
            self._receive_complete(eio_sid, pending)

    def _receive_complete(self, eio_sid: str, received: Foreign) -> None:
        handle = self._handle_event if received.packet_type == packet.BINARY_EVENT else self._handle_ack
        handle(eio_sid, received.namespace, received.id, received.data)

    def _receive_binary(self, eio_sid: str, received: Foreign) -> None:
        if not self.manager.sid_from_eio_sid(eio_sid, received.namespace or "/"):
            raise MalformedPacket("attachments for a namespace that the client is not connected to")
        if received.attachment_count:
            self._binary_packet[eio_sid] = received
        else:
            self._receive_complete(eio_sid, received)

    # -- events

    def _take_event(self, socket: SocketIOSession, eio_sid: str, data: str | bytes) -> bool:
        """An event for the default namespace in one packet: run its handler at once. Other packets: ``False``."""
        if not self._takes_events or type(data) is not str or (self._binary_packet and eio_sid in self._binary_packet):
            return False
        parsed = _parse_event(data)
        if parsed is None:
            return False
        manager = self.manager
        sid = manager.sid_from_eio_sid(eio_sid, "/")
        is_pending = manager.pending_connect or manager.pending_disconnect
        if sid is not None and (not is_pending or manager.is_connected(sid, "/")):
            self._run_beside(socket, sid, "/", parsed[1], parsed[0])
        return True

    def _handle_event(self, eio_sid: str, namespace: str | None, id: int | None, data: list[Value]) -> None:
        socket = self.eio.sockets.get(eio_sid) if self._runs_beside else None
        if socket is None:
            super()._handle_event(eio_sid, namespace, id, data)
            return
        namespace = namespace or "/"
        sid = self.manager.sid_from_eio_sid(eio_sid, namespace)
        if self.manager.is_connected(sid, namespace):
            self._run_beside(socket, sid, namespace, id, data)

    def _run_beside(self, socket: SocketIOSession, sid: str, namespace: str, id: int | None, event: list[Value]) -> None:
        """Run the handler of an event in this greenlet. The client's next events do not wait for it."""
        name, event[0] = event[0], sid
        handlers = self.handlers.get(namespace) if self._calls_directly else None
        handler = None if handlers is None else handlers.get(name)
        if handler is None:
            # one of a class, or of all events or namespaces, or none
            handler = partial(self._trigger_event, name, namespace)
        socket.begin_handler(MAX_HANDLERS)
        try:
            # a handler's context variables are not those of the next event that this greenlet handles
            result = copy_context().run(handler, *event)
            if id is not None and result is not self.not_handled:
                self._acknowledge(socket, namespace, id, result)
        except LISTENER_ERRORS:
            logger.exception("a handler of the event %r failed; the session goes on", name)
        finally:
            socket.end_handler()

    def _acknowledge(self, socket: SocketIOSession, namespace: str, id: int, result: Value) -> None:
        data = [] if result is None else list(result) if isinstance(result, tuple) else [result]
        if self.sends_directly:
            try:
                text = dumps(data)
            except HasBinary:
                pass
            else:
                self.eio.send_to(socket, f"3{id}{text}" if namespace == "/" else f"3{namespace},{id}{text}")
                return
        self._send_packet(socket.id, self.packet_class(packet.ACK, namespace=namespace, id=id, data=data))

    # -- connecting

    def _handle_connect(self, eio_sid: str, namespace: str | None, data: Value) -> None:
        name = namespace or "/"
        if not self._has_namespace(name):
            self._refuse_namespace(eio_sid, name, "Invalid namespace")
        elif self.manager.sid_from_eio_sid(eio_sid, name):
            self._refuse_namespace(eio_sid, name, "Unable to connect")
        elif self._count_namespaces(eio_sid) >= MAX_NAMESPACES:
            self._refuse_namespace(eio_sid, name, "Too many namespaces")
        else:
            super()._handle_connect(eio_sid, namespace, data)

    def _connect_old_client(self, eio_sid: str) -> None:
        """Connect a client of Socket.IO 2 to the default namespace: it does not ask."""
        self._old_clients.add(eio_sid)
        self._handle_connect(eio_sid, "/", None)

    def _old_form(self, pkt: Foreign) -> Foreign:
        """A packet in the form that it has in Socket.IO 2: no session id, and an error that is a text."""
        if pkt.packet_type == packet.CONNECT:
            return self.packet_class(packet.CONNECT, namespace=pkt.namespace)
        if pkt.packet_type == packet.CONNECT_ERROR and isinstance(pkt.data, dict):
            return self.packet_class(packet.CONNECT_ERROR, data=pkt.data.get("message"), namespace=pkt.namespace)
        return pkt

    def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        super()._handle_eio_disconnect(eio_sid, reason)
        self._binary_packet.pop(eio_sid, None)
        self._old_clients.discard(eio_sid)

    def _has_namespace(self, name: str) -> bool:
        return (name in self.handlers or name in self.namespace_handlers or self.namespaces == "*" or name in self.namespaces)

    def _count_namespaces(self, eio_sid: str) -> int:
        names = list(self.manager.get_namespaces())
        if len(names) < MAX_NAMESPACES:
            return 0
        return sum(1 for name in names if self.manager.sid_from_eio_sid(eio_sid, name))

    def _refuse_namespace(self, eio_sid: str, name: str, why: str) -> None:
        """Tell a client that it is not connected: an object with a ``message``, which the official clients read."""
        self.refusals[why.lower()] += 1
        self._send_packet(eio_sid, self.packet_class(packet.CONNECT_ERROR, data={"message": why}, namespace=name))


def _refuse(server: Server, eio_sid: str, received: Foreign) -> None:
    raise MalformedPacket(f"a packet of type {received.packet_type} from a client")


#: what is done with each type of packet
_RECEIVE: dict[int, Callable[[Server, str, Foreign], None]] = {
    packet.CONNECT: lambda server, sid, received: server._handle_connect(sid, received.namespace, received.data),
    packet.DISCONNECT: lambda server, sid, received: server._handle_disconnect(
        sid, received.namespace, server.reason.CLIENT_DISCONNECT),
    packet.EVENT: lambda server, sid, received: server._handle_event(sid, received.namespace, received.id, received.data),
    packet.ACK: lambda server, sid, received: server._handle_ack(sid, received.namespace, received.id, received.data),
    packet.BINARY_EVENT: Server._receive_binary,
    packet.BINARY_ACK: Server._receive_binary,
}


def _parse_event(data: str) -> tuple[list[Value], int | None] | None:
    """An event of the default namespace and its id; ``None`` if the packet is anything else, or malformed."""
    id, start = None, 1
    if data[1:2] != "[":
        start = data.find("[", 1, MAX_ID + 2)
        if start < 0 or not (data[1:start].isascii() and data[1:start].isdecimal()):
            return None
        id = int(data[1:start])
    try:
        event, end = scan(data, start)
    except (StopIteration, ValueError, RecursionError):
        return None
    if end != len(data) or not event or type(event[0]) is not str or event[0] in RESERVED_EVENTS:
        return None
    return event, id
