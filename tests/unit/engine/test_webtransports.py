"""engine/webtransports.py: the way from a session of HTTP/3 and its first packet to a session of the engine."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from support.fakehooks import ENVIRON, fake_hooks, made_with_registries
from support.fakeloop import FakeLoop

from engineio_wsgi.engine.admission import CheckedRequest, RequestKind
from engineio_wsgi.engine.advice import Advice
from engineio_wsgi.engine.handshakes import Handshakes
from engineio_wsgi.engine.refusals import Refusals
from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.engine.webtransports import FirstPacket, WebTransports, add_query, session_id_in
from engineio_wsgi.errors import Forbidden, ProtocolError, RequestRefused
from engineio_wsgi.http3.offer import SessionOffer
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio.stream import StreamDecoder, encode_frame
from engineio_wsgi.runtime import deadline
from engineio_wsgi.transports.polling import PollingTransport

TRANSPORTS = ("polling", "websocket", "webtransport")


class FakeStream:
    """The stream of a session: what arrives is what a test says."""

    unsent = 0
    goodbye = None

    def __init__(self) -> None:
        self.arriving = b""
        self.ended = False
        self.lost: OSError | None = None
        self.readable: Callable[[], object] | None = None
        self.written = b""
        self.finished: tuple[int, str] | None = None

    def recv(self, size: int) -> bytes:
        """What a test has let arrive."""
        data, self.arriving = self.arriving[:size], self.arriving[size:]
        if not data and self.lost is not None:
            raise self.lost
        if not data and not self.ended:
            raise BlockingIOError
        return data

    def arrive(self, data: bytes = b"", ended: bool = False) -> None:
        """The client sends something."""
        self.arriving += data
        self.ended |= ended
        while self.readable is not None and (self.arriving or self.ended or self.lost):
            self.readable()

    def watch(self, on_readable: Callable[[], object]) -> None:
        """Call back when something arrives, and soon if something has."""
        self.readable = on_readable
        gevent.get_hub().loop.run_callback(self.arrive)

    def unwatch(self) -> None:
        """Do not."""
        self.readable = None

    def write(self, data: bytes) -> None:
        """The server sends something."""
        self.written += data

    def call_when_drained(self, callback: Callable[[], object]) -> None:
        """Everything is sent at once."""

    def finish(self, code: int, reason: str) -> None:
        """The server closes the session."""
        self.finished = (code, reason)

    def close(self) -> None:
        """The server closes the session at once."""
        self.finished = (0, "")

    def packet(self) -> Any:
        """Block until the server has sent a packet."""
        decoder = StreamDecoder(1 << 20)
        with gevent.Timeout(60):
            while not (packets := decoder.feed(self.written)):
                gevent.sleep(0)
        self.written = b""
        return packets[0]


class FakeSession:
    """A session of HTTP/3 as the engine sees it."""

    def __init__(self) -> None:
        self.environ = dict(ENVIRON)
        self.stream = FakeStream()
        self.streamed: Callable[[FakeStream], object] | None = None
        self.ended: Callable[[], object] | None = None
        self.closed: tuple[int, str] | None = None

    def on_stream(self, callback: Callable[[Any], object]) -> None:
        """Call back with the stream."""
        self.streamed = callback

    def on_end(self, callback: Callable[[], object] | None) -> None:
        """Call back at the end."""
        self.ended = callback

    def close(self, code: int = 0, reason: str = "") -> None:
        """The session ends."""
        if self.closed is None:
            self.closed = (code, reason)
            self.end()

    def end(self) -> None:
        """It has ended."""
        callback, self.ended = self.ended, None
        if callback is not None:
            callback()

    def open_stream(self, data: bytes = b"") -> FakeStream:
        """The client opens a stream."""
        assert self.streamed is not None
        self.streamed(self.stream)
        self.stream.arrive(data)
        return self.stream

    def wait_closed(self) -> tuple[int, str]:
        """Block until the server has closed it."""
        with gevent.Timeout(60):
            while self.closed is None:
                gevent.sleep(0)
        return self.closed


class Made:
    """The WebTransport sessions of a server."""

    def __init__(self, registry: Registry, **hooks: Any) -> None:
        self.registry = registry
        advice = Advice()
        self.handshakes = Handshakes(registry, fake_hooks(**hooks), advice)
        self.webtransports = WebTransports(registry, self.handshakes, Refusals(registry, fake_hooks(), advice))

    def serve(self) -> FakeSession:
        """A session that was admitted and is open."""
        session = FakeSession()
        offer = SessionOffer()
        assert self.webtransports.admit(session.environ, offer).status == "200 OK"
        assert offer.serve is not None
        offer.serve(session)
        return session


@pytest.fixture
def make() -> Iterator[Callable[..., Made]]:
    """Makes what serves WebTransport, with hooks and options."""
    yield from made_with_registries(Made)


def served(make: Any, **hooks: Any) -> Any:
    """The same, with all transports."""
    options = {"transports": TRANSPORTS, **hooks.pop("options", {})}
    return make(options=options, **hooks)


# -- the request


@pytest.mark.parametrize(("given", "query"), [("", "EIO=4&transport=webtransport"), ("a=1", "EIO=4&transport=webtransport&a=1")])
def test_the_query(given: str, query: str) -> None:
    environ = {"QUERY_STRING": given}
    add_query(environ)
    assert environ["QUERY_STRING"] == query


def test_a_server_without_the_transport(make: Any) -> None:
    with pytest.raises(RequestRefused, match="Transport unknown"):
        make().webtransports.admit(dict(ENVIRON), SessionOffer())


def test_a_server_that_closes(make: Any) -> None:
    made = served(make)
    made.registry.stop_opening()
    with pytest.raises(RequestRefused):
        made.webtransports.admit(dict(ENVIRON), SessionOffer())


# -- the first packet


def test_a_new_session(make: Any) -> None:
    made = served(make)
    session = made.serve()
    stream = session.open_stream(encode_frame("0"))
    assert json.loads(stream.packet()[1:])["sid"] == "abcd1"
    assert made.registry.sessions["abcd1"].transport.name == "webtransport"
    assert (session.ended, session.closed) == (None, None)


def test_an_upgrade(make: Any) -> None:
    made = served(make)
    polling = served_by_polling(made)
    stream = made.serve().open_stream(encode_frame(f'0{{"sid":"{polling.id}"}}'))
    stream.arrive(encode_frame("2probe"))
    assert stream.packet() == "3probe"


def served_by_polling(made: Made) -> Any:
    """A session that polls."""
    checked = CheckedRequest(RequestKind.HANDSHAKE, "polling", {"EIO": "4", "transport": "polling"}, 4, None)
    session = made.handshakes.new_session(made.handshakes.admit(dict(ENVIRON)), checked, dict(ENVIRON))
    made.registry.open(session, PollingTransport(4, 100_000))
    return session


def test_a_session_that_is_unknown(make: Any) -> None:
    session = served(make).serve()
    session.open_stream(encode_frame('0{"sid":"unknown"}'))
    assert session.wait_closed() == (1008, '{"code":1,"message":"Session ID unknown"}')


def test_a_relay_takes_what_is_not_here(make: Any) -> None:
    made = served(make)
    relayed: list[object] = []
    made.webtransports.relay_by(lambda environ, sid, stream: bool(relayed.append((sid, stream)) or sid == "elsewhere"))
    session = made.serve()
    stream = session.open_stream(encode_frame('0{"sid":"elsewhere"}'))
    other = made.serve()
    other.open_stream(encode_frame('0{"sid":"nowhere"}'))
    assert other.wait_closed()[0] == 1008
    assert relayed == [("elsewhere", stream), ("nowhere", other.stream)]
    assert session.closed is None


def test_a_refusal(make: Any) -> None:
    def admit(environ: Any) -> str:
        raise Forbidden("not you")

    session = served(make, admit=admit).serve()
    session.open_stream(encode_frame("0"))
    assert session.wait_closed() == (1008, '{"code":4,"message":"not you"}')


@pytest.mark.complains
@pytest.mark.parametrize("where", ["admission", "relay"])
def test_a_session_whose_application_fails_is_closed(make: Any, where: str) -> None:
    def fail(*arguments: Any) -> Any:
        raise ZeroDivisionError

    made = served(make, admit=fail)
    made.webtransports.relay_by(fail)
    session = made.serve()
    session.open_stream(encode_frame("0" if where == "admission" else '0{"sid":"elsewhere"}'))
    assert session.wait_closed() == (1011, "")


@pytest.mark.parametrize("content", ["1", "4hello", "2probe", "9", b"binary", '0{"sid":5}', '0{"sid":""}', "0[]", "0{",
                                     "0" * 5000],
                         ids=lambda content: repr(content)[:20])
def test_another_first_packet(make: Any, content: str | bytes) -> None:
    session = served(make).serve()
    session.open_stream(encode_frame(content))
    assert session.closed == (1008, "")


def test_a_stream_that_ends_or_is_lost_before_it(make: Any) -> None:
    made = served(make)
    for how in ("ended", "lost"):
        session = made.serve()
        stream = session.open_stream(b"\x05")
        if how == "lost":
            stream.lost = ConnectionResetError("lost")
        stream.arrive(ended=how == "ended")
        assert session.closed == (1008, "")
        assert stream.readable is None


def test_the_bytes_behind_the_first_packet_stay_in_the_stream(make: Any) -> None:
    made = served(make)
    opened: list[bytes] = []
    session = FakeSession()
    FirstPacket(session, dict(ENVIRON), made.registry.hub.loop, 60.0, lambda stream, sid: opened.append(stream.arriving))
    session.open_stream(encode_frame("0")[:1]).arrive(encode_frame("0")[1:] + b"behind")
    assert opened == [b"behind"]


class Waiting:
    """A session whose first packet has not come, and a loop whose time a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = FakeLoop()
        monkeypatch.setattr(deadline, "monotonic", self.loop.monotonic)
        self.session = FakeSession()
        self.opened: list[str] = []
        FirstPacket(self.session, dict(ENVIRON), self.loop, 10.0, lambda stream, sid: self.opened.append(sid))


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    return Waiting(monkeypatch)


@pytest.mark.parametrize("begun", [False, True])
def test_a_first_packet_that_does_not_come(waiting: Waiting, caplog: pytest.LogCaptureFixture, begun: bool) -> None:
    caplog.set_level(logging.INFO, "engine.webtransport")
    if begun:
        waiting.session.open_stream(b"\x05")
    waiting.loop.advance(9.0)
    assert waiting.session.closed is None
    waiting.loop.advance(2.0)
    assert waiting.session.closed == (1008, "")
    assert (waiting.loop.timers, waiting.opened, waiting.session.stream.readable) == ([], [], None)
    assert "no first packet within 10 s" in caplog.text


@pytest.mark.parametrize("begun", [False, True])
def test_a_session_that_ends_is_not_waited_for(waiting: Waiting, caplog: pytest.LogCaptureFixture, begun: bool) -> None:
    caplog.set_level(logging.INFO, "engine.webtransport")
    if begun:
        waiting.session.open_stream(b"\x05")
    waiting.session.end()
    assert waiting.loop.timers == []
    assert waiting.session.stream.readable is None
    waiting.loop.advance(60.0)
    assert (waiting.session.closed, caplog.text) == (None, "")


# -- what it says


@pytest.mark.parametrize(("data", "sid"), [("", ""), ('{"sid":"abc"}', "abc"), ('{"sid":"abc","more":1}', "abc")])
def test_the_id_in_an_open_packet(data: str, sid: str) -> None:
    assert session_id_in(Packet(PacketType.OPEN, data)) == sid


@pytest.mark.parametrize(("packet", "said"), [
    (Packet(PacketType.MESSAGE, "x"), "has to be an open packet, and not message"),
    (Packet(PacketType.OPEN, '{"sid":5}'), 'empty or {"sid":"…"}'),
    (Packet(PacketType.OPEN, "[" * 100_000), 'empty or {"sid":"…"}'),
], ids=["message", "number", "nested"])  # fmt: skip
def test_what_is_no_id(packet: Packet, said: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        session_id_in(packet)
    assert said in str(raised.value)
