"""What workers of one machine say to each other: kinds of messages, their bytes, and what is accepted as one.

Owns the format and its version. Knows no sockets. A message is a head of JSON and a body of bytes; nothing in it is ever
executed, and what is not as it has to be is a :class:`BadMessage`.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from struct import Struct
from typing import Any, NamedTuple, Self

from engineio_wsgi.errors import BadMessage

__all__ = [
    "PREFIX_SIZE",
    "VERSION",
    "Action",
    "Answer",
    "BadMessage",
    "Call",
    "Kind",
    "Message",
    "MovedConnection",
    "Prefix",
    "Refusal",
    "Request",
    "Result",
    "check_version",
]  # fmt: skip

#: of the format; a worker that speaks another one is not spoken to
VERSION = 2
#: version, kind, bytes of the head, bytes of the body
_PREFIX = Struct("!BcII")
PREFIX_SIZE = _PREFIX.size
#: ``json.dumps`` would make an encoder, and ``json.loads`` guess an encoding, for each message: 1.6 of 10 µs
_write_json = json.JSONEncoder(separators=(",", ":")).encode
_read_json = json.JSONDecoder().decode
#: bytes of a head: the headers of a request and their quoting
MAX_HEAD = 262_144
#: bytes of a body. What a client may send has a limit of its own, ``max_http_buffer_size``
MAX_BODY = 1 << 30


def check_version(version: int) -> None:
    """Raise :class:`BadMessage` if a worker of another version speaks."""
    if version != VERSION:
        raise BadMessage(f"it speaks version {version}, this worker {VERSION}: run one version of engineio_wsgi")


class Kind(enum.Enum):
    """What a message is about."""

    #: a client's connection, as a file descriptor beside the message; the body is what was read from it
    CONNECTION = b"C"
    #: a request, with its body, to be answered
    REQUEST = b"R"
    #: the connection or the request is the receiver's now
    TAKEN = b"T"
    #: it is not; the head says why
    REFUSED = b"N"
    #: the answer to a request
    ANSWER = b"A"
    #: something to be done for sessions that live there; the body is the message, if it is about one
    CALL = b"L"
    #: what came of it: the head says a number
    RESULT = b"V"
    #: between machines: bytes of a connection, in the body
    DATA = b"D"
    #: so many of them have gone on to the client, or to the session
    ROOM = b"M"
    #: the conversation is over
    END = b"E"

    @property
    def begins(self) -> bool:
        """Whether a conversation can begin with it."""
        return self in (Kind.CONNECTION, Kind.REQUEST)


class Prefix(NamedTuple):
    """The beginning of a message."""

    kind: Kind
    head: int
    body: int

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the first :data:`PREFIX_SIZE` bytes of a message.

        Raises:
            BadMessage: they are not the beginning of one.
        """
        if len(data) < PREFIX_SIZE:
            raise BadMessage(f"{len(data)} bytes are no message")
        version, letter, head, body = _PREFIX.unpack_from(data)
        check_version(version)
        if head > MAX_HEAD or body > MAX_BODY:
            raise BadMessage(f"a head of {head} and a body of {body} bytes are too large")
        try:
            return cls(Kind(letter), head, body)
        except ValueError:
            raise BadMessage(f"there is no kind {letter!r}") from None


class Message(NamedTuple):
    """One message, whatever it is about."""

    kind: Kind
    head: Mapping[str, Any] = {}
    body: bytes = b""

    def encode(self) -> bytes:
        """Its bytes.

        Raises:
            BadMessage: it is too large to be sent.
        """
        head = _write_json(self.head).encode("ascii") if self.head else b""
        if len(head) > MAX_HEAD or len(self.body) > MAX_BODY:
            raise BadMessage(f"a head of {len(head)} and a body of {len(self.body)} bytes are too large")
        return _PREFIX.pack(VERSION, self.kind.value, len(head), len(self.body)) + head + self.body

    @classmethod
    def decode(cls, prefix: Prefix, data: bytes) -> Self:
        """Read what follows the prefix.

        Raises:
            BadMessage: the head is not what it has to be.
        """
        try:
            head = _read_json(data[:prefix.head].decode("ascii")) if prefix.head else {}
        except (ValueError, RecursionError) as error:
            raise BadMessage("the head is not JSON") from error
        if not isinstance(head, dict):
            raise BadMessage("the head is not an object")
        return cls(prefix.kind, head, data[prefix.head:])


class MovedConnection(NamedTuple):
    """A client's connection that changes its worker.

    Attributes:
        terms: what workers that send each other requests have in common.
        sid: the session whose worker gets it.
        address: the client's, as ``accept`` has returned it.
        origin: what the environs of its requests hold beside what is the request's own.
        hops: how often it has changed its worker before.
        listener: the names of the server that has accepted it, or empty ones: the address that it listens on, and its kind.
        handshake: if the connection is about to become the session's WebSocket, or is one: the handshake's environ, with all that
            has been put into it outside of the engine; else ``None``.
        accepted: whether the handshake has been answered already.
    """

    terms: str
    sid: str
    address: Any
    origin: dict[str, str]
    hops: int
    listener: tuple[str, str]
    handshake: dict[str, str] | None
    accepted: bool

    def message(self, read_ahead: bytes) -> Message:
        """The message that says so. The file descriptor goes beside it."""
        return Message(Kind.CONNECTION, self._asdict(), read_ahead)

    @classmethod
    def of(cls, message: Message) -> Self:
        """What a message of this kind says."""
        head = message.head
        address, hops = head.get("address"), head.get("hops")
        if isinstance(address, list):
            address = tuple(address)
        if not isinstance(hops, int) or not 0 <= hops < 256 or not isinstance(address, (str, tuple)):
            raise BadMessage("a connection without an address or its hops")
        listener = head.get("listener")
        if not isinstance(listener, list) or len(listener) != 2 or not all(isinstance(name, str) for name in listener):
            raise BadMessage("a connection without the names of its listener")
        handshake = None if head.get("handshake") is None else _texts(head, "handshake")
        return cls(_text(head, "terms"), _text(head, "sid"), address, _texts(head, "origin"), hops,
                   (listener[0], listener[1]), handshake, handshake is not None and head.get("accepted") is True)


class Request(NamedTuple):
    """A request that is answered by another worker than the one that its client is connected to.

    Attributes:
        terms: as above.
        sid: the session that it is for.
        environ: the part of the WSGI environ that is text.
    """

    terms: str
    sid: str
    environ: dict[str, str]

    def message(self, body: bytes) -> Message:
        """The message that says so."""
        return Message(Kind.REQUEST, self._asdict(), body)

    @classmethod
    def of(cls, message: Message) -> Self:
        """What a message of this kind says."""
        environ = _texts(message.head, "environ")
        if "REQUEST_METHOD" not in environ:
            raise BadMessage("a request without a method")
        return cls(_text(message.head, "terms"), _text(message.head, "sid"), environ)


class Refusal(enum.Enum):
    """Why a worker does not take what it was sent."""

    #: the session has ended
    UNKNOWN = "unknown"
    #: it has as many connections as it may have, or knows no server that would serve this one as its own did; a request can still
    #: be sent
    FULL = "full"
    #: it belongs to another application, or has been given other options
    OTHER_TERMS = "terms"

    def message(self) -> Message:
        """The message that says so."""
        return Message(Kind.REFUSED, {"why": self.value})

    @classmethod
    def of(cls, message: Message) -> Self:
        """What a message of this kind says."""
        try:
            return cls(message.head.get("why"))
        except ValueError:
            raise BadMessage("a refusal without a reason") from None


class Answer(NamedTuple):
    """The answer to a request."""

    status: str
    headers: list[tuple[str, str]]

    def message(self, body: bytes) -> Message:
        """The message that says so."""
        return Message(Kind.ANSWER, self._asdict(), body)

    @classmethod
    def of(cls, message: Message) -> Self:
        """What a message of this kind says."""
        headers = message.head.get("headers")
        if not isinstance(headers, list) or not all(_is_header(header) for header in headers):
            raise BadMessage("an answer without headers")
        return cls(_text(message.head, "status"), [(name, value) for name, value in headers])


class Action(enum.Enum):
    """What a worker is asked to do."""

    SEND = "send"
    BROADCAST = "broadcast"
    DISCONNECT = "disconnect"
    COUNT = "count"


class Call(NamedTuple):
    """Something to be done for the sessions of another worker.

    Attributes:
        group: of workers that serve each other's sessions.
        action: what.
        sids: the session that it is for; of a broadcast, those that it is not for.
        text: whether the body is text.
        compress: whether transports may compress it.
    """

    group: str
    action: Action
    sids: tuple[str, ...] = ()
    text: bool = False
    compress: bool = True

    def message(self, data: str | bytes = b"") -> Message:
        """The message that says so, with what is to be sent."""
        head = {**self._asdict(), "action": self.action.value, "text": isinstance(data, str)}
        # a lone surrogate is the session's to replace
        return Message(Kind.CALL, head, data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)

    @classmethod
    def of(cls, message: Message) -> Self:
        """What a message of this kind says."""
        head = message.head
        sids = head.get("sids")
        if not isinstance(sids, list) or not all(isinstance(sid, str) for sid in sids):
            raise BadMessage("sids are missing")
        try:
            action = Action(head.get("action"))
        except ValueError:
            raise BadMessage("a call of something that there is not") from None
        if action in (Action.SEND, Action.DISCONNECT) and len(sids) != 1:
            raise BadMessage("a call for one session names another number of them")
        return cls(_text(head, "group"), action, tuple(sids), head.get("text") is True, head.get("compress") is True)

    def data(self, body: bytes) -> str | bytes:
        """What is to be sent.

        Raises:
            BadMessage: it is said to be text, and is none.
        """
        try:
            return body.decode("utf-8", "surrogatepass") if self.text else body
        except UnicodeDecodeError:
            raise BadMessage("a text that is none") from None


class Result(NamedTuple):
    """What came of a call: how many sessions it concerned."""

    sessions: int

    def message(self) -> Message:
        """The message that says so."""
        return Message(Kind.RESULT, self._asdict())

    @classmethod
    def of(cls, message: Message) -> Self:
        """What a message of this kind says."""
        sessions = message.head.get("sessions")
        if message.kind is not Kind.RESULT or not isinstance(sessions, int):
            raise BadMessage("a result without a number")
        return cls(sessions)


def _is_header(header: Any) -> bool:
    return isinstance(header, list) and len(header) == 2 and all(isinstance(part, str) for part in header)


def _text(head: Mapping[str, Any], name: str) -> str:
    value = head.get(name)
    if not isinstance(value, str):
        raise BadMessage(f"{name} is missing")
    return value


def _texts(head: Mapping[str, Any], name: str) -> dict[str, str]:
    value = head.get(name)
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise BadMessage(f"{name} is missing")
    return value
