"""The upgrade as a machine: every packet in every state, every end, and random orders of all of it on a clock of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakeloop import FakeLoop

from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.websocket.frames import FrameDecoder, Opcode, encode_binary, encode_close, encode_frame, encode_text
from engineio_wsgi.runtime import deadline
from engineio_wsgi.session.upgrade import MOVES, CandidateSink, Upgrade, UpgradeState
from engineio_wsgi.transports.websocket import WebSocketTransport

TIMEOUT = 10.0
PROBING, PONGED = UpgradeState.PROBING, UpgradeState.PONGED
SWITCHED, ABANDONED = UpgradeState.SWITCHED, UpgradeState.ABANDONED

PROBE, UPGRADE = encode_text("2probe"), encode_text("5")
#: what each does in each state that is not the end; whatever is not here ends the attempt
LEGAL = {(PROBING, "2probe"): PONGED, (PONGED, "5"): SWITCHED}
PACKETS = ["2probe", "5", "", "0", "1", "2", "2prob", "2probes", "3", "3probe", "4hello", "4", "5x", "6", "7", "bAAE=", "probe"]
#: control frames and others that change nothing
HARMLESS = {"ping": encode_frame(Opcode.PING, b"x"), "pong": encode_frame(Opcode.PONG, b"x")}
#: frames that end the attempt whatever its state
FATAL = {
    "binary": encode_binary(b"\x042probe"),
    "close": encode_close(1000, ""),
    "close without a code": encode_frame(Opcode.CLOSE, b""),
    "reserved bits": b"\xf1\x002",
    "not UTF-8": encode_frame(Opcode.TEXT, b"2\xff"),
}


class FakeWire:
    """A connection: what arrives is what a test says; ``written`` is what was written."""

    def __init__(self) -> None:
        self.arriving: list[bytes | OSError] = []
        self.written: list[bytes] = []
        self.on_readable: Any = None
        self.unsent = 0
        self.closed = False
        self.lost: OSError | None = None
        self.closings = 0

    def call_when_drained(self, callback: Any) -> None:
        """As a `Connection` does."""

    def watch(self, on_readable: Any) -> None:
        """As a `Connection` does."""
        self.on_readable = on_readable

    def recv(self, size: int) -> bytes:
        """What arrived; raises what was put there to be raised."""
        data = self.arriving.pop(0)
        if isinstance(data, OSError):
            raise data
        return data

    def write(self, data: bytes) -> None:
        """As a `Connection` does."""
        if self.lost is not None:
            raise self.lost
        self.written.append(data)

    def linger(self) -> None:
        """Close politely: the connection is there for a while, and nobody reads from it."""
        self.closings += 1
        self.on_readable = None

    def close(self) -> None:
        """Nothing is read any more."""
        self.closings += 1
        self.closed = True
        self.on_readable = None


class OldTransport:
    """What the session has used so far."""

    def __init__(self) -> None:
        self.nudges: list[float] = []


class FakeSession:
    """What an upgrade asks of its session, written down in ``log``."""

    id = "a session id"
    remote_address = "192.0.2.7"
    outbox = None
    closed = False

    def __init__(self, loop: FakeLoop) -> None:
        self.log: list[Any] = []
        self.received: list[Any] = []
        self.abandoned = 0
        self.transport: Any = OldTransport()
        self.transport.nudge = lambda: self.old.nudges.append(round(loop.now - 1000.0, 6))
        self.old = self.transport
        self.inbox = self

    def notify(self, event: str, *args: object) -> None:
        """An event of the session."""
        self.log.append((event, *args))

    def switch_transport(self, transport: Any) -> None:
        """The switch, as the session does it."""
        self.log.append("switch")
        self.transport = transport
        transport.bind(self)

    def upgrade_abandoned(self) -> None:
        """The session stays where it is."""
        self.abandoned += 1

    def count_control(self, number: int) -> bool:
        """There is no limit."""
        return True

    def enqueue(self, messages: Sequence[str | bytes]) -> None:
        """Messages of the session."""
        self.received.extend(messages)

    def on_packet(self, packet: Packet) -> None:
        """Other packets of the session."""
        self.received.append(packet)

    def submit_turn(self) -> None:
        """The listeners of the session run soon."""
        self.log.append("turn")

    def end(self, reason: str, description: object = None) -> None:
        """The session must not end because of an upgrade."""
        raise AssertionError("the session was ended")


class _Clock:
    """The clock of the latest attempt."""

    loop = FakeLoop()


@pytest.fixture(autouse=True, scope="module")
def clock() -> Iterator[None]:
    """Deadlines are on that clock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deadline, "monotonic", lambda: _Clock.loop.now)
        yield


class Attempt:
    """An upgrade under way, its session, its connection and its clock."""

    def __init__(self, protocol: int = 4) -> None:
        self.loop = _Clock.loop = FakeLoop()
        self.wire = FakeWire()
        self.session = FakeSession(self.loop)
        session: Any = self.session
        wire: Any = self.wire
        greenlets: Any = None
        self.candidate = WebSocketTransport(wire, greenlets, FrameDecoder(1000, masked=False), protocol)
        self.upgrade = Upgrade(session, self.candidate, self.loop, TIMEOUT)
        self.upgrade.start()

    def arrive(self, *arriving: bytes | OSError) -> None:
        """Each of ``arriving`` is what one ``recv`` finds."""
        for data in arriving:
            if self.wire.on_readable is None:
                return
            self.wire.arriving.append(data)
            self.wire.on_readable()

    def until(self, state: UpgradeState) -> Attempt:
        """Bring the attempt into ``state`` (one that is not the end)."""
        if state is PONGED:
            self.arrive(PROBE)
        assert self.upgrade.state is state
        return self

    def check(self) -> None:
        """What holds whatever has happened."""
        state = self.upgrade.state
        assert self.session.abandoned == (1 if state is ABANDONED else 0)
        assert self.session.transport is (self.candidate if state is SWITCHED else self.session.old)
        assert self.wire.closings == (1 if state is ABANDONED else 0)
        assert len(self.loop.timers) == {PROBING: 1, PONGED: 2}.get(state, 0), "timers of an attempt end with it"
        events = [entry[0] if isinstance(entry, tuple) else entry for entry in self.session.log]
        expected = ["upgrading"] if state is not PROBING else []
        if state is SWITCHED:
            expected = ["upgrading", "switch", "upgrade", "turn"]
        assert events == expected or (state is ABANDONED and events == [])
        if state is not SWITCHED:
            assert self.session.received == []


REVISIONS = pytest.mark.parametrize("protocol", [3, 4])
UNFINISHED = pytest.mark.parametrize("state", [PROBING, PONGED], ids=lambda state: state.value)


# -- what the client may say, and what it may not


@REVISIONS
@UNFINISHED
@pytest.mark.parametrize("packet", PACKETS)
def test_a_packet(state: UpgradeState, packet: str, protocol: int) -> None:
    attempt = Attempt(protocol).until(state)
    attempt.arrive(encode_text(packet))
    assert attempt.upgrade.state is LEGAL.get((state, packet), ABANDONED)
    attempt.check()


def test_the_moves() -> None:
    """Whoever adds a move adds it to the packets that are tried above."""
    assert {(state, f"{packet_type:d}{data!s}"): to for (state, packet_type, data), to in MOVES.items()} == LEGAL


@UNFINISHED
@pytest.mark.parametrize("name", FATAL)
def test_frames_that_abandon_the_upgrade(state: UpgradeState, name: str) -> None:
    attempt = Attempt().until(state)
    attempt.arrive(FATAL[name])
    assert attempt.upgrade.state is ABANDONED
    attempt.check()


@UNFINISHED
@pytest.mark.parametrize("name", HARMLESS)
def test_frames_that_change_nothing(state: UpgradeState, name: str) -> None:
    attempt = Attempt().until(state)
    before = len(attempt.wire.written)
    attempt.arrive(HARMLESS[name])
    assert attempt.upgrade.state is state
    assert attempt.wire.written[before:] == ([encode_frame(Opcode.PONG, b"x")] if name == "ping" else [])
    attempt.check()


def test_a_binary_message_is_not_a_probe() -> None:
    attempt = Attempt(3)
    attempt.arrive(encode_binary(b"\x02probe"))
    assert attempt.upgrade.state is ABANDONED


# -- the probe


@REVISIONS
def test_a_probe_is_answered(protocol: int) -> None:
    attempt = Attempt(protocol)
    attempt.arrive(PROBE)
    assert attempt.wire.written == [encode_text("3probe")]
    assert attempt.session.log == [("upgrading", attempt.candidate)]
    attempt.check()


def test_the_old_transport_is_nudged_at_once_and_ten_times_a_second() -> None:
    attempt = Attempt()
    attempt.loop.advance(0.45)
    assert attempt.session.old.nudges == []
    attempt.arrive(PROBE)
    attempt.loop.advance(0.35)
    assert attempt.session.old.nudges == [0.45, 0.55, 0.65, 0.75]
    attempt.arrive(UPGRADE)
    attempt.loop.advance(1.0)
    assert len(attempt.session.old.nudges) == 4


def test_a_candidate_that_is_lost_while_the_probe_is_answered() -> None:
    attempt = Attempt()
    attempt.wire.lost = BrokenPipeError("gone")
    attempt.arrive(PROBE)
    assert attempt.upgrade.state is ABANDONED
    assert attempt.session.log == []
    assert attempt.session.old.nudges == []
    attempt.check()


# -- the switch


def test_the_switch() -> None:
    attempt = Attempt()
    attempt.arrive(PROBE, UPGRADE)
    assert attempt.session.log == [("upgrading", attempt.candidate), "switch", ("upgrade", attempt.candidate), "turn"]
    attempt.check()


def test_all_packets_in_one_piece() -> None:
    """Nothing says that a client waits for the answer to its probe; what comes behind is the session's, in order."""
    attempt = Attempt()
    attempt.arrive(PROBE + UPGRADE + encode_text("4a") + encode_binary(b"b") + encode_text("3") + encode_text("4c"))
    assert attempt.upgrade.state is SWITCHED
    assert attempt.session.received == ["a", b"b", Packet(PacketType.PONG), "c"]
    attempt.check()


def test_a_ping_behind_the_upgrade_is_answered_once() -> None:
    attempt = Attempt()
    attempt.arrive(PROBE + UPGRADE + HARMLESS["ping"])
    assert attempt.wire.written == [encode_text("3probe"), encode_frame(Opcode.PONG, b"x")]


def test_packets_in_small_pieces() -> None:
    attempt = Attempt()
    for byte in PROBE + UPGRADE:
        attempt.arrive(bytes([byte]))
    assert attempt.upgrade.state is SWITCHED
    attempt.check()


def test_nothing_after_the_switch_reverts_it() -> None:
    attempt = Attempt()
    attempt.arrive(PROBE, UPGRADE)
    attempt.loop.advance(2 * TIMEOUT)
    attempt.upgrade.abandon("too late")
    CandidateSink(attempt.upgrade, "a session id", None).end("transport error", "too late")
    assert attempt.upgrade.state is SWITCHED
    attempt.check()


# -- the ends


@UNFINISHED
@pytest.mark.parametrize("arriving", [b"", ConnectionResetError("reset")], ids=["end", "reset"])
def test_a_candidate_that_is_closed(state: UpgradeState, arriving: Any) -> None:
    attempt = Attempt().until(state)
    attempt.arrive(arriving)
    assert attempt.upgrade.state is ABANDONED
    attempt.check()


@UNFINISHED
def test_a_false_alarm_changes_nothing(state: UpgradeState) -> None:
    attempt = Attempt().until(state)
    attempt.arrive(BlockingIOError())
    assert attempt.upgrade.state is state
    attempt.check()


@UNFINISHED
def test_the_time_limit(state: UpgradeState) -> None:
    attempt = Attempt()
    attempt.loop.advance(1.0)
    attempt.until(state)
    attempt.loop.advance(TIMEOUT - 1.0 - 0.001)
    assert attempt.upgrade.state is state, "and the probe does not make it longer"
    attempt.loop.advance(0.01)
    assert attempt.upgrade.state is ABANDONED
    attempt.check()


@UNFINISHED
def test_the_time_limit_is_extended_when_the_loop_was_late(state: UpgradeState) -> None:
    attempt = Attempt().until(state)
    attempt.loop.block(2 * TIMEOUT)
    assert attempt.upgrade.state is state
    attempt.arrive(*[PROBE, UPGRADE][state is PONGED:])
    assert attempt.upgrade.state is SWITCHED
    attempt.check()


@UNFINISHED
def test_the_session_ends(state: UpgradeState) -> None:
    attempt = Attempt().until(state)
    attempt.upgrade.abandon("the session has ended")
    attempt.upgrade.abandon("the session has ended")
    assert attempt.upgrade.state is ABANDONED
    attempt.check()


@UNFINISHED
def test_frames_behind_a_fatal_one_are_ignored(state: UpgradeState) -> None:
    attempt = Attempt().until(state)
    before = len(attempt.wire.written)
    attempt.arrive(encode_text("6") + HARMLESS["ping"] + PROBE + UPGRADE + encode_text("4a"))
    assert attempt.upgrade.state is ABANDONED
    assert attempt.wire.written[before:] == [encode_close(1000, "transport close")]
    attempt.check()


def test_a_close_frame_is_answered() -> None:
    attempt = Attempt()
    attempt.arrive(encode_close(1000, ""))
    assert attempt.wire.written == [encode_close(1000, "transport close")]


# -- any order of anything

FRAMES: dict[str, bytes] = {**{packet: encode_text(packet) for packet in PACKETS}, **HARMLESS, **FATAL}
OTHERS = ["wait a little", "wait too long", "end of stream", "reset", "false alarm", "session ends"]
#: weighted, or hardly any attempt would get anywhere
STEP = st.one_of(
    st.sampled_from(["2probe", "5", "ping", "false alarm", "wait a little"]),
    st.sampled_from([*FRAMES, *OTHERS]),
)


def step(attempt: Attempt, name: str) -> None:
    """Make ``name`` happen."""
    if name in FRAMES:
        attempt.arrive(FRAMES[name])
    elif name == "wait a little":
        attempt.loop.advance(0.25)
    elif name == "wait too long":
        attempt.loop.advance(TIMEOUT + 0.01)
    elif name == "session ends":
        attempt.upgrade.abandon("the session has ended")
    else:
        happening = {"end of stream": b"", "reset": ConnectionResetError(), "false alarm": BlockingIOError()}
        attempt.arrive(happening[name])


def expected_state(state: UpgradeState, name: str) -> UpgradeState:
    """Where ``name`` leads."""
    if state in (SWITCHED, ABANDONED) or name in HARMLESS or name in ("wait a little", "false alarm"):
        return state
    return LEGAL.get((state, name), ABANDONED)


@given(names=st.lists(STEP, max_size=12), protocol=st.sampled_from([3, 4]))
def test_any_order(names: list[str], protocol: int) -> None:
    attempt = Attempt(protocol)
    state = PROBING
    for name in names:
        step(attempt, name)
        state = expected_state(state, name)
        assert attempt.upgrade.state is state
        if state is SWITCHED:
            break
        attempt.check()
    attempt.check()


@given(
    messages=st.lists(st.text(max_size=5) | st.binary(max_size=5), max_size=5),
    cuts=st.lists(st.integers(0, 100), max_size=6),
)
def test_no_message_behind_the_upgrade_is_lost_wherever_it_is_cut(messages: list[str | bytes], cuts: list[int]) -> None:
    """After the switch the session reads by itself; a frame that was cut before is completed by its own decoder."""
    frames = [encode_text("4" + item) if isinstance(item, str) else encode_binary(item) for item in messages]
    stream = b"".join([PROBE, HARMLESS["ping"], UPGRADE, *frames])
    attempt = Attempt()
    start = 0
    for cut in sorted({min(cut, len(stream)) for cut in cuts} | {len(stream)}):
        piece = stream[start:cut]
        start = cut
        if attempt.upgrade.state is SWITCHED:
            attempt.candidate.take(attempt.candidate.feed(piece))
        elif piece:
            attempt.arrive(piece)
    assert attempt.session.received == messages
    attempt.check()
