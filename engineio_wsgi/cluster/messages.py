"""The messages that workers send each other: their kinds, their bytes, and the checks of what arrives.

Owns the format and its version. Knows no sockets. A message is a prefix of fixed size, a head of texts, and a body of bytes.
Nothing in it is ever executed, and whatever breaks the format is a :class:`BadMessage`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, islice
from struct import Struct
from typing import NamedTuple, Self

from engineio_wsgi.cluster.bundles import pack, unpack
from engineio_wsgi.errors import BadMessage, OwnerRefused, SessionMoves
from engineio_wsgi.http.response import Response
from engineio_wsgi.session.delivery import Delivery, OnSlow
from engineio_wsgi.session.outgoing import Outgoing

__all__ = ["VERSION", "Action", "Address", "Call", "Kind", "Message", "MovedConnection", "Refusal", "Request",
           "check_version", "read_answer", "read_number", "read_result", "write_answer", "write_result"]

#: of the format; workers of different versions refuse each other's messages
VERSION = 4
#: version, kind, bytes of the head, bytes of the body
_PREFIX = Struct("!BcII")
#: bytes of a head: the headers of a request
MAX_HEAD = 262_144
#: bytes of a body. What a client may send has a limit of its own, ``max_http_buffer_size``
MAX_BODY = 1 << 30
#: digits of a number in a head: no more than 64 bits
MAX_DIGITS = 19
#: separates the fields of a head, unless one of them contains it
SEPARATOR = "\0"

#: a client's address, as ``accept`` returns it; empty if it is not known
Address = tuple[str | int, ...] | str


def check_version(version: int) -> None:
    """Raise :class:`BadMessage` if the sender has another version of the protocol."""
    if version != VERSION:
        raise BadMessage(f"it has version {version} of the protocol between workers, and this worker has {VERSION}: "
                         "run the same version of engineio_wsgi everywhere")


class Kind(enum.Enum):
    """The kinds of messages."""

    #: a client's connection, as a file descriptor beside the message; the body is what was read from it
    CONNECTION = b"C"
    #: a request, with its body, to be answered
    REQUEST = b"R"
    #: the receiver has taken the connection or the request
    TAKEN = b"T"
    #: the receiver refuses it; the head says why
    REFUSED = b"N"
    #: the answer to a request
    ANSWER = b"A"
    #: a call for sessions of the receiver; the body is the message to send, if there is one
    CALL = b"L"
    #: the result of a call: a number in the head
    RESULT = b"V"
    #: between machines: bytes of a connection, in the body
    DATA = b"D"
    #: the receiver of such bytes has passed on as many as the head says
    ROOM = b"M"
    #: the conversation is over
    END = b"E"
    #: a worker that leaves asks whether the receiver can take its sessions
    SEARCH = b"Q"
    #: the answer: what it has to know for that
    CANDIDATE = b"I"
    #: the worker that leaves wants to move its sessions to the receiver; NAME, SESSION, CALL and IDLE follow, then END
    CLAIM = b"H"
    #: a name of the worker that leaves, with its listener as a file descriptor beside the message
    NAME = b"W"
    #: a session in the body; its connection, if it has one, is beside the message
    SESSION = b"S"
    #: a connection that waits for its next request, beside the message; fields as those of CONNECTION
    IDLE = b"K"

    @property
    def begins(self) -> bool:
        """Whether a conversation can begin with it."""
        return self in (Kind.CONNECTION, Kind.REQUEST)


_KINDS = {kind.value: kind for kind in Kind}


def _read_prefix(data: bytes) -> tuple[Kind, int, int]:
    """The kind of a message, and the bytes of its head and body."""
    if len(data) < _PREFIX.size:
        raise BadMessage(f"expected a message, got {len(data)} bytes")
    version, letter, head, body = _PREFIX.unpack_from(data)
    check_version(version)
    if head > MAX_HEAD or body > MAX_BODY:
        raise BadMessage(f"a head of {head} and a body of {body} bytes are too large")
    kind = _KINDS.get(letter)
    if kind is None:
        raise BadMessage(f"unknown kind of message: {letter!r}")
    return kind, head, body


class Message(NamedTuple):
    """One message of any kind."""

    kind: Kind
    fields: Sequence[str] = ()
    body: bytes = b""

    def encode(self) -> bytes:
        """Its bytes.

        Raises:
            BadMessage: it is too large to be sent.
        """
        head = _join(self.fields) if self.fields else b""
        if len(head) > MAX_HEAD or len(self.body) > MAX_BODY:
            raise BadMessage(f"a head of {len(head)} and a body of {len(self.body)} bytes are too large")
        return b"%b%b%b" % (_PREFIX.pack(VERSION, self.kind.value, len(head), len(self.body)), head, self.body)

    @staticmethod
    def size_of(data: bytes) -> int:
        """The bytes of the message that begins with these: at least its prefix.

        Raises:
            BadMessage: they are not the beginning of a message.
        """
        _, head, body = _read_prefix(data)
        return _PREFIX.size + head + body

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a whole message.

        Raises:
            BadMessage: the bytes are not a message.
        """
        kind, head_size, body_size = _read_prefix(data)
        end = _PREFIX.size + head_size
        if len(data) != end + body_size:
            raise BadMessage("the message is not as long as its prefix says")
        try:
            head = data[_PREFIX.size:end].decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise BadMessage("the head is not UTF-8") from None
        return cls(kind, head[1:].split(head[0]) if head else (), data[end:])

    def expect(self, kind: Kind) -> Sequence[str]:
        """The fields of a message of this kind.

        Raises:
            BadMessage: it is of another kind.
        """
        if self.kind is not kind:
            raise BadMessage(f"expected {kind.name}, got {self.kind.name}")
        return self.fields


def _join(fields: Sequence[str]) -> bytes:
    """The head with these fields. Its first character separates them: one that none of them contains."""
    separator = SEPARATOR
    head = separator.join(fields)
    if head.count(separator) >= len(fields):
        separator = next(character for character in map(chr, count()) if character not in head)
        head = separator.join(fields)
    return (separator + head).encode("utf-8", "surrogatepass")


def _flat(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    return chain.from_iterable(pairs)


def _pairs(left: Iterator[str]) -> list[tuple[str, str]]:
    try:
        return list(zip(left, left, strict=True))
    except ValueError:
        raise BadMessage("a name without a value") from None


def read_number(text: str) -> int:
    """The number in a field.

    Raises:
        BadMessage: the text is not a number.
    """
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS:
        raise BadMessage(f"{text[:MAX_DIGITS]!r} is not a number")
    return int(text)


class MovedConnection(NamedTuple):
    """A client's connection that changes its worker.

    Attributes:
        fingerprint: the configuration that workers must share to send each other requests.
        sid: the session whose worker gets it.
        address: the client's.
        origin: the part of its requests' environs that belongs to the connection.
        hops: how often it has changed its worker before.
        listener: the names of the server that has accepted it, or empty ones: the address that it listens on, and its kind.
        handshake: if the connection is about to become the session's WebSocket, or is one: the handshake's environ, with
            everything that was added to it outside of the engine; else ``None``.
        accepted: whether the handshake has been answered already.
    """

    fingerprint: str
    sid: str
    address: Address
    origin: Mapping[str, str]
    hops: int
    listener: tuple[str, str]
    handshake: Mapping[str, str] | None
    accepted: bool

    def message(self, read_ahead: bytes) -> Message:
        """The message for it. The file descriptor goes beside it."""
        state = "request" if self.handshake is None else "accepted" if self.accepted else "handshake"
        address = [] if isinstance(self.address, str) else list(map(str, self.address))
        fields = [self.fingerprint, self.sid, str(self.hops), *self.listener, state, str(len(address)), *address,
                  str(len(self.origin)), *_flat(self.origin.items()), *_flat((self.handshake or {}).items())]
        return Message(Kind.CONNECTION, fields, read_ahead)

    @classmethod
    def of(cls, message: Message) -> Self:
        """Read a message of this kind."""
        left = iter(message.expect(Kind.CONNECTION))
        fingerprint, sid, hops, name, kind, state = _take(left, 6)
        host, *numbers = _take(left, read_number(*_take(left, 1))) or [""]
        origin = dict(_pairs(iter(_take(left, 2 * read_number(*_take(left, 1))))))
        handshake = dict(_pairs(left))
        if state not in ("request", "handshake", "accepted") or read_number(hops) > 255:
            raise BadMessage("a connection in an unknown state")
        address: Address = (host, *map(read_number, numbers)) if host else ""
        return cls(fingerprint, sid, address, origin, int(hops), (name, kind), None if state == "request" else handshake,
                   state == "accepted")


def _take(fields: Iterator[str], number: int) -> list[str]:
    taken = list(islice(fields, number))
    if len(taken) != number:
        raise BadMessage("a message with too few fields")
    return taken


class Request(NamedTuple):
    """A request whose client is connected to another worker than the one that answers.

    Attributes:
        fingerprint: as above.
        sid: the session that it is for.
        environ: the part of the WSGI environ that is text.
    """

    fingerprint: str
    sid: str
    environ: Mapping[str, str]

    def message(self, body: bytes) -> Message:
        """The message for it."""
        return Message(Kind.REQUEST, [self.fingerprint, self.sid, *_flat(self.environ.items())], body)

    @classmethod
    def of(cls, message: Message) -> Self:
        """Read a message of this kind."""
        left = iter(message.expect(Kind.REQUEST))
        fingerprint, sid = _take(left, 2)
        environ = dict(_pairs(left))
        if "REQUEST_METHOD" not in environ:
            raise BadMessage("a request without a method")
        return cls(fingerprint, sid, environ)


class Refusal(enum.Enum):
    """Why a worker refuses a connection or a request. The values are texts for the log."""

    #: the session has ended
    UNKNOWN = "the worker knows no such session"
    #: the worker has as many connections as it may have, or has no server that would serve this one as its own did; a request can
    #: still be sent
    FULL = "the worker has too many connections"
    #: another process has its name now: connect to it anew
    MOVED = "the session is moving to another worker"
    #: the session has not arrived yet: the process that had the name before has it
    FORMER = "the session has not moved yet"
    #: a session that moves is not valid here, or this worker is leaving itself
    NOT_TAKEN = "the worker does not take the session"
    #: the worker belongs to another application, or has other options
    OTHER_CONFIGURATION = "the worker has other options"

    def message(self) -> Message:
        """The message for it."""
        return Message(Kind.REFUSED, (self.name,))

    @classmethod
    def of(cls, message: Message) -> Self:
        """Read a message of this kind."""
        try:
            return cls[" ".join(message.expect(Kind.REFUSED))]
        except KeyError:
            raise BadMessage("a refusal without a reason") from None

    @property
    def error(self) -> OwnerRefused:
        """The error for it, in the worker that is refused."""
        if self is Refusal.MOVED or self is Refusal.FORMER:
            return SessionMoves(self.value, self is Refusal.FORMER)
        return OwnerRefused(self.value, self is Refusal.FULL)


def write_answer(answered: Response) -> Message:
    """The message with the answer to a request."""
    return Message(Kind.ANSWER, [answered.status, *_flat(answered.headers)], answered.body)


def read_answer(message: Message) -> Response:
    """The answer to a request.

    Raises:
        BadMessage: the message is not an answer.
    """
    left = iter(message.expect(Kind.ANSWER))
    (status,) = _take(left, 1)
    return Response(status, _pairs(left), message.body)


class Action(enum.Enum):
    """The actions that a worker can ask for."""

    SEND = "send"
    BROADCAST = "broadcast"
    DISCONNECT = "disconnect"
    COUNT = "count"
    PUBLISH = "publish"


class Call(NamedTuple):
    """An action for the sessions of another worker.

    Attributes:
        group: of workers that serve each other's sessions.
        action: what to do.
        sids: the session that it is for; of a broadcast, those that it is not for.
        form: of the body: text, binary or a bundle.
        compress: whether transports may compress it.
        to, on_slow, key: of a broadcast, as `Delivery` has them; ``to`` is the topic of what is published, and ``sids`` are its
            other fields (`publisher.Post`).
        trace: the headers that continue a trace (`carriers`); empty without a trace.
    """

    group: str
    action: Action
    sids: tuple[str, ...] = ()
    form: str = ""
    compress: bool = True
    to: str | None = None
    on_slow: OnSlow = OnSlow.CLOSE
    key: str | None = None
    trace: str = ""

    @classmethod
    def broadcast(cls, group: str, delivery: Delivery) -> Self:
        """The call that sends a message to the sessions of a worker that it is for."""
        return cls(group, Action.BROADCAST, tuple(delivery.exclude), compress=delivery.compress, to=delivery.to,
                   on_slow=delivery.on_slow, key=delivery.key)

    @property
    def delivery(self) -> Delivery:
        """Of a broadcast: how it is delivered."""
        return Delivery(self.to, frozenset(self.sids), self.compress, self.on_slow, self.key)

    def message(self, data: Outgoing = b"") -> Message:
        """The message for it, with the data to send."""
        form, body = pack(data)
        fields = [self.group, self.action.value, form, "compress" if self.compress else "", self.to or "", self.on_slow.value,
                  self.key or "", self.trace, *self.sids]
        return Message(Kind.CALL, fields, body)

    @classmethod
    def of(cls, message: Message) -> Self:
        """Read a message of this kind."""
        left = iter(message.expect(Kind.CALL))
        group, name, form, compress, to, how, key, trace = _take(left, 8)
        sids = tuple(left)
        try:
            action, on_slow = Action(name), OnSlow(how)
        except ValueError as error:
            raise BadMessage(f"a call with an unknown action: {error}") from None
        if action in (Action.SEND, Action.DISCONNECT) and len(sids) != 1:
            raise BadMessage(f"a call for one session names {len(sids)} sessions")
        return cls(group, action, sids, form, compress == "compress", to or None, on_slow, key or None, trace)

    def data(self, body: bytes) -> Outgoing:
        """The data to send.

        Raises:
            BadMessage: the body has another form.
        """
        return unpack(self.form, body)


def write_result(sessions: int) -> Message:
    """The message with the result of a call: how many sessions it concerned."""
    return Message(Kind.RESULT, (str(sessions),))


def read_result(message: Message) -> int:
    """The result of a call.

    Raises:
        BadMessage: the message is not a result.
    """
    return read_number("".join(message.expect(Kind.RESULT)))
