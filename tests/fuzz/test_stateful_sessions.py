"""A client that does anything at any time, against a model: what each side is told, in which order, and how it ends.

One machine is one server with one session after the other. ``TEST_STATEFUL_EXAMPLES`` makes a long run of it.
"""

from __future__ import annotations

import os
from typing import Any

import gevent
import gevent.event
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from support.clients import PollingSession, Session, WebSocketSession, open_session, packet_of, probe
from support.rawwebsocket import Closed, Refused, frame_bytes
from support.serving import LocalServer

import engineio_wsgi

pytestmark = [pytest.mark.ours, pytest.mark.deadline(3600)]

EXAMPLES = int(os.environ.get("TEST_STATEFUL_EXAMPLES", "30"))
STEPS = 50

#: revision 4 separates the packets of a payload by U+001E, so that no message can hold one
texts = st.text(st.characters(exclude_characters="\x1e", exclude_categories=["Cs"]), max_size=20)
data = st.one_of(texts, st.binary(max_size=20), st.just("x" * 3_000))
messages = st.lists(data, min_size=1, max_size=4)
GONE = "transport close"


class Sessions(RuleBasedStateMachine):
    """The model: what was sent either way in this session, and what of it has arrived."""

    handler = ""

    def __init__(self) -> None:
        super().__init__()
        self.server = LocalServer(None, self.handler, allow_eio3=True, ping_interval=1000.0, ping_timeout=1000.0)
        self.served = self.server.served
        self.got: list[Any] = []
        self.came = gevent.event.Event()
        self.served.server.on("connection", lambda socket: socket.on("message", self._take))
        self.session: Any = None
        self.sessions = 0

    def _take(self, message: Any) -> None:
        self.got.append(message)
        self.came.set()

    # -- the model's helpers

    def _ended(self, *reasons: str, heard_all: bool = False) -> None:
        """The session has ended on the client's side: what does the server say of it?"""
        told = self.served.events.wait("close", self.sessions)
        assert told["sid"] == self.session.sid
        assert told["reason"] in reasons
        assert self.socket.ready_state == "closed"
        unsent = [message for message in told["unsent"] if message is not None]
        assert unsent == self.to_client[len(self.to_client) - len(unsent):]
        assert not (heard_all and self.to_client)
        with pytest.raises(engineio_wsgi.SocketClosed):
            self.socket.send("too late")
        assert self.session.sid not in self.served.server.clients
        self.session = None

    def _heard(self, packets: list[Any]) -> None:
        """What the client has received has to be what was sent first."""
        heard = [packet if isinstance(packet, bytes) else packet[1:] for packet in packets
                 if isinstance(packet, bytes) or packet[:1] == "4"]
        assert heard == self.to_client[:len(heard)]
        del self.to_client[:len(heard)]

    def _arrived(self, sent: list[Any]) -> None:
        """The server has got these, and nothing else."""
        while len(self.got) < len(sent):
            self.came.clear()
            assert self.came.wait(60)
        assert self.got == sent
        self.got = []

    def _decided(self, transport: str) -> None:
        """The upgrade is over, and ``transport`` is what the session goes on with."""
        with gevent.Timeout(60):
            while self.socket.upgrading:
                gevent.sleep(0)
        assert self.socket.transport.name == transport

    @property
    def _is_polling(self) -> bool:
        return isinstance(self.session, PollingSession)

    # -- beginnings

    @precondition(lambda self: self.session is None)
    @rule(transport=st.sampled_from(["polling", "websocket"]), eio=st.sampled_from([4, 3]))
    def open(self, transport: str, eio: int) -> None:
        """A handshake."""
        self.session: Session = open_session(self.served, transport, eio)
        self.sessions += 1
        self.served.events.wait("connection", self.sessions)
        self.socket = self.served.socket(self.session.sid)
        self.to_client: list[Any] = []

    # -- what the server does

    @precondition(lambda self: self.session is not None)
    @rule(sent=messages, way=st.sampled_from(["one", "greenlets", "thread", "broadcast"]))
    def server_sends(self, sent: list[Any], way: str) -> None:
        """From where it is called, from a greenlet each, from a thread, or to everybody."""
        if way == "greenlets":
            gevent.joinall([gevent.spawn(self.socket.send, message) for message in sent], raise_error=True)
        elif way == "thread":
            gevent.get_hub().threadpool.apply(lambda: [self.socket.send(message) for message in sent])
        else:
            for message in sent:
                (self.socket.send if way == "one" else self.served.server.broadcast)(message)
        self.to_client += sent

    @precondition(lambda self: self.session is not None)
    @rule(discard=st.booleans())
    def server_closes(self, discard: bool) -> None:
        """The client may fetch what is left, unless that is discarded."""
        self.socket.close(discard=discard)
        with pytest.raises(engineio_wsgi.SocketClosed):
            self.socket.send("too late")
        if discard:
            self._ended("forced close")
            return
        while self._listen() != "closed":
            pass
        self._ended("forced close", heard_all=True)

    def _listen(self) -> str | None:
        """Receive once; ``"closed"`` when the server has said goodbye."""
        if self._is_polling:
            packets = self.session.end_poll() if self.session.polling else self.session.poll()
            self._heard(packets)
            return "closed" if "1" in packets else None
        try:
            self._heard([self.session.recv()])
        except Closed:
            return "closed"
        return None

    # -- what the client does

    @precondition(lambda self: self.session is not None)
    @rule(sent=messages)
    def client_sends(self, sent: list[Any]) -> None:
        """In one POST, or in frames of their own."""
        self.session.say(*sent)
        self._arrived(sent)

    @precondition(lambda self: self.session is not None and self.to_client)
    @rule()
    def client_hears(self) -> None:
        """Everything that was sent is there to be heard."""
        while self.to_client:
            assert self._listen() is None

    @precondition(lambda self: self._is_polling and not self.session.polling and not self.to_client)
    @rule()
    def client_polls(self) -> None:
        """A GET that has to wait."""
        self.session.park()

    @precondition(lambda self: self._is_polling and self.session.polling and not self.to_client)
    @rule()
    def client_aborts_its_poll(self) -> None:
        """The connection of a GET that waits is closed."""
        self.session.getting.close()
        self._ended(GONE)

    @precondition(lambda self: self._is_polling and not self.session.polling)
    @rule()
    def client_polls_twice(self) -> None:
        """A second GET while one is open ends the session; the first gets a close packet, the second 400."""
        if self.to_client:
            return
        self.session.park()
        refused = self.served.connect().get(self.session.target())
        assert refused.status == 400
        assert self.session.end_poll() == ["1"]
        self._ended("transport error")

    @precondition(lambda self: self.session is not None)
    @rule()
    def client_says_goodbye(self) -> None:
        """With a close packet or a close frame."""
        self.session.close()
        self._ended(GONE)

    @precondition(lambda self: self.session is not None)
    @rule(garbage=st.sampled_from(["x", "9", "bé!"]))
    def client_sends_garbage(self, garbage: str) -> None:
        """What is no packet ends the session, and only that."""
        if self._is_polling:
            body = garbage if self.session.eio == 4 else f"{len(garbage)}:{garbage}"
            assert self.session.posting.post(self.session.target(), body.encode()).status == 400
        else:
            self.session.ws.send(garbage)
        self._ended("parse error")

    @precondition(lambda self: isinstance(self.session, WebSocketSession))
    @rule(sent=messages, cut=st.integers(1, 9))
    def client_goes_in_the_midst_of_a_frame(self, sent: list[Any], cut: int) -> None:
        """What came before the frame has been said all the same."""
        session = self.session
        session.say(*sent)
        session.ws.http.send(frame_bytes(1, b"4never complete")[:cut])
        self._arrived(sent)
        session.vanish()
        self._ended(GONE)

    @precondition(lambda self: isinstance(self.session, WebSocketSession))
    @rule(text=texts, size=st.integers(1, 7))
    def client_stutters(self, text: str, size: int) -> None:
        """A frame that comes in pieces."""
        frame = frame_bytes(1, b"4" + text.encode())
        for at in range(0, len(frame), size):
            self.session.ws.http.send(frame[at:at + size])
            gevent.sleep(0)
        self._arrived([text])

    # -- the upgrade

    @precondition(lambda self: self._is_polling)
    @rule(before=st.lists(data, max_size=3), between=st.lists(data, max_size=3), sent=st.lists(data, max_size=3))
    def client_upgrades(self, before: list[Any], between: list[Any], sent: list[Any]) -> None:
        """Both sides talk before, during and after it."""
        polling: PollingSession = self.session
        if not polling.polling:
            polling.start_poll()
        for message in before:
            self.socket.send(message)
        self.to_client += before
        candidate = probe(polling)
        self._heard(polling.end_poll())
        for message in between:
            self.socket.send(message)
        self.to_client += between
        candidate.send("5", *map(packet_of, sent))
        self.session = candidate
        self._arrived(sent)
        polling.disconnect()
        self._decided("websocket")

    @precondition(lambda self: self._is_polling)
    @rule(how=st.sampled_from(["goes", "garbage", "another"]))
    def client_probes_in_vain(self, how: str) -> None:
        """The session goes on polling, whatever becomes of the candidate."""
        polling: PollingSession = self.session
        if not polling.polling:
            polling.start_poll()
        candidate = probe(polling)
        self._heard(polling.end_poll())
        if how == "another":
            with pytest.raises((Refused, Closed)):
                WebSocketSession(self.served, polling.eio, sid=polling.sid).recv()
        if how == "garbage":
            candidate.send("7")
        else:
            candidate.vanish()
        self._decided("polling")

    @rule()
    def a_stranger_guesses(self) -> None:
        """An id that nobody has."""
        answer = self.served.connect().get(f"{self.served.path}?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAAAAAA")
        assert (answer.status, answer.json()["code"]) == (400, 1)

    @invariant()
    def one_session(self) -> None:
        """Nothing ends but what the model says."""
        assert len(self.served.events.of("close")) == self.sessions - (self.session is not None)

    def teardown(self) -> None:
        """What is still open is closed with the server."""
        self.server.stop()


def test_anything_at_any_time(handler: str) -> None:
    machine = type("Machine", (Sessions,), {"handler": handler})
    run_state_machine_as_test(machine, settings=settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)))
