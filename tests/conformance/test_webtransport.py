"""Sessions over WebTransport, with aioquic as the client: handshake, upgrade, heartbeat, messages, limits, admission, ends."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from prometheus_client import CollectorRegistry
from support.clients import PollingSession, open_session
from support.webtransport import Client, Stream, make_certificate

import engineio_wsgi
from engineio_wsgi import Forbidden, WebTransportServer
from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.metrics import observe
from engineio_wsgi.protocol.engineio.stream import encode_frame, frame_head

pytestmark = [pytest.mark.ours, pytest.mark.alone("the UDP port is this worker's")]

TRANSPORTS = ("polling", "websocket", "webtransport")


@pytest.fixture(scope="module")
def short_lived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate and its key."""
    return make_certificate(tmp_path_factory.mktemp("webtransport"))


class Both:
    """A server over HTTP and over WebTransport, with the same port number, and its clients."""

    def __init__(self, served: Any, certificate: dict[str, str], app: Any = None, **options: Any) -> None:
        self.served = served
        self.events = served.events
        self.server = served.server
        self.webtransport = WebTransportServer(served.address, app or served.server, **certificate, **options)
        self.webtransport.start()
        self._clients: list[Client] = []

    def client(self, **options: Any) -> Client:
        """A new QUIC connection."""
        self._clients.append(Client(self.webtransport.address, **options))
        return self._clients[-1]

    def open(self, **options: Any) -> Stream:
        """A session of HTTP/3, and its stream."""
        return self.client().open(**options)

    def session(self, **options: Any) -> Stream:
        """An Engine.IO session."""
        stream = self.open(**options)
        stream.handshake()
        return stream

    def stop(self) -> None:
        """Stop the server, and then its clients."""
        self.server.close(timeout=0)
        self.webtransport.stop(timeout=0)
        for client in self._clients:
            client.stop()


@pytest.fixture
def both(serve: Any, short_lived: dict[str, str]) -> Iterator[Callable[..., Both]]:
    """A factory of servers: ``both(app="echo", **options)``; ``udp`` has those of the WebTransportServer."""
    running: list[Both] = []

    def start(app: str | None = "echo", udp: dict[str, Any] | None = None, **options: Any) -> Both:
        served = serve(app=app, **{"transports": TRANSPORTS, "allow_eio3": False, **options})
        running.append(Both(served, short_lived, **udp or {}))
        return running[-1]

    yield start
    for each in running:
        each.stop()


def upgrade_to(stream: Stream, sid: str) -> None:
    """Probe, and complete the upgrade."""
    stream.send(f'0{{"sid":"{sid}"}}', "2probe")
    assert stream.packet() == "3probe"
    stream.send("5")


# -- the handshake


def test_a_session_begins_with_the_open_packet(both: Any) -> None:
    server = both(ping_interval=3, ping_timeout=2, max_http_buffer_size=5000)
    stream = server.session()
    opened = {"upgrades": [], "pingInterval": 3000, "pingTimeout": 2000, "maxPayload": 5000}
    assert stream.opened == {**opened, "sid": stream.opened["sid"]}
    told = server.events.wait("connection")
    assert (told["sid"], told["transport"], told["protocol"]) == (stream.opened["sid"], "webtransport", 4)
    socket = server.server.clients[told["sid"]]
    assert socket.remote_address == "127.0.0.1"
    assert socket.request.args["transport"] == "webtransport"
    assert socket.request.scheme == "https"


def test_the_head_of_the_open_packet_is_one_byte(both: Any) -> None:
    stream = both().open().write(b"\x010")
    stream.client.wait(lambda: len(stream.client.received[stream.number]) > 2)
    received = stream.client.received[stream.number]
    assert received[0] == len(received) - 1 < 126
    assert received[1:3] == b"0{"


def test_the_first_packet_may_come_in_pieces_and_with_others(both: Any) -> None:
    stream = both().open()
    stream.write(b"\x01").write(b"0" + encode_frame("4hello")[:3])
    assert str(stream.packet())[:2] == "0{"
    stream.write(encode_frame("4hello")[3:])
    assert stream.packet() == "4hello"


def test_the_initial_packet(both: Any) -> None:
    stream = both(initial_packet="welcome").session()
    assert stream.packet() == "4welcome"


@pytest.mark.parametrize("first", ["1", "4hello", "2probe", "9", b"binary", '0{"sid":5}', '0{"sid":""}', "0[]", "0{", "0" * 5000,
                                   '0{"sid":"__proto__"}', '0{"sid":"11111111111111111111"}'])  # fmt: skip
def test_another_first_packet_closes_the_session(both: Any, first: str | bytes) -> None:
    server = both()
    assert server.open().send(first).wait_closed()[0] == 1008
    assert server.server.clients_count == 0
    server.session().send("4others go on")


def test_a_client_without_a_stream_is_not_kept(both: Any) -> None:
    server = both(upgrade_timeout=0.05)
    client = server.client()
    number = client.request()
    assert client.response(number)[":status"] == "200"
    client.wait(lambda: number in client.ended)


def test_a_client_that_says_nothing_on_its_stream_is_not_kept(both: Any) -> None:
    stream = both(upgrade_timeout=0.05).open().write(b"\x05")
    assert stream.wait_closed() == (1008, "")


# -- messages


@pytest.mark.parametrize("message", ["4hello", "4", "4€ 🦄", b"\x00\x01\x02", "4" + "x" * 124, "4" + "x" * 125, "4" + "x" * 65535,
                                     bytes(125), bytes(126), bytes(65535), bytes(65536), bytes(1_000_000)],
                         ids=lambda message: f"{type(message).__name__}-{len(message)}")  # fmt: skip
def test_a_message_comes_back(both: Any, message: str | bytes) -> None:
    stream = both().session()
    assert stream.send(message).packet() == message


def test_an_empty_binary_message(both: Any) -> None:
    received: list[object] = []
    server = both(app=None)
    server.server.on("connection", lambda socket: socket.on("message", lambda data: (received.append(data), socket.send(data))))
    # the clients' decoder takes a packet without content for an error, so that it is sent as base64
    assert server.session().send(b"", "bAAEC").packet() == "b"
    assert received[0] == b""


def test_many_messages_keep_their_order(both: Any) -> None:
    stream = both().session()
    generator = random.Random(7)
    sent = [f"4{index} " + "x" * generator.choice((0, 1, 100, 5000)) for index in range(500)]
    stream.send(*sent)
    assert [stream.packet() for _ in sent] == sent


def test_a_listener_may_receive(both: Any) -> None:
    server = both(app=None)

    @server.server.on("connection")
    def connection(socket: Any) -> None:
        for message in socket:
            socket.send(message * 2)

    stream = server.session().send("4a", "4b")
    assert (stream.packet(), stream.packet()) == ("4aa", "4bb")
    assert stream.send("4c").packet() == "4cc"


def test_callbacks_of_sent_messages(both: Any) -> None:
    server = both(app=None)
    called: list[int] = []
    socket = server.server.clients[server.session().opened["sid"]]
    for index in range(4):
        socket.send("hello", callback=lambda index=index: called.append(index))
    assert socket.flush(timeout=60)
    socket.close()
    server.events.wait("close")
    assert called == [0, 1, 2, 3]


def test_a_broadcast_reaches_every_transport(both: Any) -> None:
    server = both()
    streams = [server.session(), server.session()]
    others = [open_session(server.served, "polling"), open_session(server.served, "websocket")]
    for message in ("to all", b"\x00\x01"):
        server.server.broadcast(message)
        assert {stream.packet() for stream in streams} == {f"4{message}" if isinstance(message, str) else message}
        assert {session.hear() for session in others} == {message}


@pytest.mark.parametrize("frame", [encode_frame("4" + "x" * 5000), frame_head(1 << 62, True), frame_head(5001, True)],
                         ids=["whole", "announced 2^62", "announced 5001"])  # fmt: skip
def test_a_packet_that_is_too_large(both: Any, frame: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "engine.webtransport")
    server = both(max_http_buffer_size=5000)
    stream = server.session()
    stream.write(frame)
    assert stream.wait_closed() == (1009, "")
    assert server.events.wait("close")["reason"] == "parse error"
    assert "at most 5000 are accepted (max_http_buffer_size)" in caplog.text


@pytest.mark.parametrize("frame", [b"\x00", b"\x019", b"\x024\xff", b"\x02b!"], ids=["empty", "type 9", "no UTF-8", "no base64"])
def test_what_is_no_packet(both: Any, frame: bytes) -> None:
    received: list[object] = []
    server = both(app=None)
    server.server.on("connection", lambda socket: socket.on("message", received.append))
    stream = server.session()
    stream.write(encode_frame("4before") + frame + encode_frame("4behind"))
    assert stream.wait_closed() == (1002, "")
    assert server.events.wait("close")["reason"] == "parse error"
    assert received == ["before"]


# -- the heartbeat


def test_heartbeats(both: Any) -> None:
    server = both(ping_interval=0.02)
    stream = server.session()
    for _ in range(5):
        assert stream.packet() == "2"
        stream.send("3")
    server.events.wait("heartbeat", 4)


def test_a_flood_of_pongs_is_closed(both: Any) -> None:
    server = both("silent", max_messages_per_second=5, rate_limit_timeout=1.0)
    server.session().send(*["3"] * 1000)
    assert server.events.wait("close")["reason"] == "rate limit exceeded"


def test_a_client_that_does_not_answer(both: Any) -> None:
    server = both(ping_interval=0.02, ping_timeout=0.03)
    stream = server.session()
    assert stream.wait_closed() == (0, "ping timeout")
    assert server.events.wait("close")["reason"] == "ping timeout"


def test_a_client_that_vanishes(both: Any) -> None:
    server = both(ping_interval=0.05, ping_timeout=0.05)
    server.session().client.stop()
    assert server.events.wait("close")["reason"] == "ping timeout"


# -- the end


def test_the_server_closes(both: Any) -> None:
    server = both()
    stream = server.session()
    server.server.clients[stream.opened["sid"]].send("last words").close()
    assert stream.packet() == "4last words"
    assert stream.wait_closed() == (0, "forced close")
    assert server.events.wait("close")["reason"] == "forced close"


def test_what_was_sent_arrives_before_the_end(both: Any) -> None:
    server = both(app="silent")
    stream = server.session()
    socket = server.server.clients[stream.opened["sid"]]
    for index in range(20):
        socket.send(f"{index} " + "x" * 50_000)
    socket.close()
    assert [str(stream.packet()).split()[0] for _ in range(20)] == [f"4{index}" for index in range(20)]
    stream.wait_closed()


@pytest.mark.parametrize(("code", "reason", "is_goodbye"), [(0, "", True), (0, "bye", True), (4000, "done", False)])
def test_the_client_closes(both: Any, code: int, reason: str, is_goodbye: bool) -> None:
    server = both()
    server.session().send("4hello").close(code, reason)
    told = server.events.wait("close")
    assert told["reason"] == "transport close"
    assert (told["description"] == engineio_wsgi.GOODBYE) is is_goodbye
    assert told["description"].code == (code or None)


def test_the_client_leaves(both: Any) -> None:
    server = both()
    server.session().client.close()
    told = server.events.wait("close")
    assert (told["reason"], told["description"]) == ("transport close", engineio_wsgi.GOODBYE)


@pytest.mark.parametrize("how", ["stream ended", "stream reset", "stream refused", "request ended", "connection lost"])
def test_other_ends_of_a_client(both: Any, how: str) -> None:
    server = both()
    stream = server.session()
    client = stream.client
    if how == "stream ended":
        stream.write(b"", end=True)
    elif how == "stream reset":
        client.quic.reset_stream(stream.number, 1)
    elif how == "stream refused":
        client.quic.stop_stream(stream.number, 1)
    elif how == "request ended":
        client.http.send_data(stream.session, b"", end_stream=True)
    else:
        client.quic.close(0x101)
    client.send()
    assert server.events.wait("close")["reason"] == "transport close"


def test_messages_before_the_end_are_delivered(both: Any) -> None:
    received: list[object] = []
    server = both(app=None)
    server.server.on("connection", lambda socket: socket.on("message", received.append))
    stream = server.session()
    stream.send(*[f"4{index}" for index in range(100)]).close()
    server.events.wait("close")
    assert received == [str(index) for index in range(100)]


def test_closing_the_server(both: Any) -> None:
    server = both()
    stream = server.session()
    server.server.close(timeout=60)
    assert stream.wait_closed() == (1001, "server shutting down")
    client = server.client()
    assert client.response(client.request())[":status"] == "503"


# -- the upgrade


def test_an_upgrade_from_polling(both: Any) -> None:
    server = both()
    polling = open_session(server.served, "polling")
    assert polling.info["upgrades"] == ["websocket", "webtransport"]
    upgrade_to(stream := server.open(), polling.sid)
    assert server.events.wait("upgrade")["transport"] == "webtransport"
    assert stream.send("4hello").packet() == "4hello"
    assert server.server.clients[polling.sid].upgraded


def test_the_transport_is_offered_while_it_is_served(both: Any) -> None:
    server = both()
    assert server.server.upgrades("polling") == ["websocket", "webtransport"]
    server.webtransport.stop(timeout=0)
    assert server.server.upgrades("polling") == ["websocket"]
    assert open_session(server.served, "polling").info["upgrades"] == ["websocket"]


def test_what_was_sent_during_an_upgrade_arrives_once(both: Any) -> None:
    server = both()
    polling = open_session(server.served, "polling")
    socket = server.server.clients[polling.sid]
    stream = server.open().send(f'0{{"sid":"{polling.sid}"}}', "2probe")
    assert stream.packet() == "3probe"
    for index in range(50):
        socket.send(str(index))
    received = [polling.hear()]
    while received[-1] != "49" and polling.inbox:
        received.append(polling.hear())
    stream.send("5")
    server.events.wait("upgrade")
    socket.send("last")
    while received[-1] != "last":
        received.append(str(stream.packet())[1:])
    assert received == [*map(str, range(50)), "last"]


@pytest.mark.parametrize("packets", [("2probe", "4early"), ("5",), ("2other",), ("2probe", "2probe"), ("2probe", b"binary"),
                                     ("2probe", "9")], ids=str)  # fmt: skip
def test_a_wrong_upgrade_leaves_the_session_as_it_was(both: Any, packets: tuple[str, ...]) -> None:
    server = both()
    polling = open_session(server.served, "polling")
    stream = server.open().send(f'0{{"sid":"{polling.sid}"}}', *packets)
    stream.wait_closed()
    polling.say("still here")
    assert polling.hear() == "still here"
    upgrade_to(server.open(), polling.sid)
    server.events.wait("upgrade")


def test_an_upgrade_that_is_not_finished(both: Any) -> None:
    server = both(upgrade_timeout=0.05)
    polling = open_session(server.served, "polling")
    server.open().send(f'0{{"sid":"{polling.sid}"}}', "2probe").wait_closed()
    polling.say("still here")
    assert polling.hear() == "still here"


def test_a_second_upgrade_is_refused(both: Any) -> None:
    server = both()
    polling = open_session(server.served, "polling")
    first = server.open().send(f'0{{"sid":"{polling.sid}"}}', "2probe")
    assert first.packet() == "3probe"
    second = server.open().send(f'0{{"sid":"{polling.sid}"}}')
    assert second.wait_closed() == (1008, '{"code":3,"message":"Bad request"}')
    assert server.events.wait("connection_error")["context"]["name"] == "UPGRADE_UNDER_WAY"
    first.send("5")
    server.events.wait("upgrade")
    third = server.open().send(f'0{{"sid":"{polling.sid}"}}')
    assert third.wait_closed()[0] == 1008


def test_no_upgrades(both: Any) -> None:
    server = both(allow_upgrades=False)
    polling = open_session(server.served, "polling")
    assert polling.info["upgrades"] == []
    assert server.open().send(f'0{{"sid":"{polling.sid}"}}').wait_closed()[0] == 1008


def test_other_revisions_are_not_upgraded(both: Any) -> None:
    server = both(allow_eio3=True)
    polling = PollingSession(server.served, eio=3)
    polling.open()
    assert server.open().send(f'0{{"sid":"{polling.sid}"}}').wait_closed()[0] == 1008
    assert server.events.wait("connection_error")["context"]["name"] == "PROTOCOL_MISMATCH"


# -- admission


def refused(server: Both, **options: Any) -> tuple[str, str]:
    """The status and the body of the answer to a request."""
    client = server.client()
    number = client.request(**options)
    status = client.response(number)[":status"]
    client.wait(lambda: number in client.ended)
    return status, client.bodies.get(number, b"").decode()


def test_the_origin(both: Any) -> None:
    server = both(cors="https://good.example")
    status, body = refused(server, origin="https://bad.example")
    assert (status, json.loads(body)["code"]) == ("403", 4)
    assert server.events.wait("connection_error")["context"]["name"] == "ORIGIN"
    server.session(origin="https://good.example")


def test_the_same_origin(both: Any) -> None:
    server = both()
    server.session(origin=f"https://127.0.0.1:{server.served.address[1]}")
    assert refused(server, origin="https://other.example")[0] == "403"


def test_the_host(both: Any) -> None:
    server = both(allowed_hosts=["good.example"])
    assert refused(server)[0] != "200"
    server.session(authority="good.example")


def test_the_application_is_asked(both: Any) -> None:
    def allow(request: Any) -> bool:
        gevent.sleep(0)
        if "banned" in request.args:
            raise Forbidden("you are banned")
        return request.args.get("token") == "secret"

    server = both(allow_request=allow)
    stream = server.open(path="/engine.io/?banned").send("0")
    assert stream.wait_closed() == (1008, '{"code":4,"message":"you are banned"}')
    assert server.events.wait("connection_error")["code"] == 4
    assert server.open(path="/engine.io/?token=wrong").send("0").wait_closed()[0] == 1008
    server.session(path="/engine.io/?token=secret")
    assert server.server.clients_count == 1


def test_sessions_of_one_address(both: Any) -> None:
    server = both(max_sessions_per_address=2)
    first, second = server.session(), open_session(server.served, "websocket")
    assert server.open().send("0").wait_closed()[0] == 1008
    assert server.events.wait("connection_error")["context"]["option"] == "max_sessions_per_address"
    second.say("still here")
    assert second.hear() == "still here"
    first.close()
    server.events.wait("close")
    server.session()


def test_middlewares_see_the_request_and_may_refuse_it(both: Any) -> None:
    server = both()
    seen: list[str] = []

    @server.server.use
    def guard(application: Any) -> Any:
        def guarded(environ: dict[str, Any], start_response: Any) -> Any:
            seen.append(environ["QUERY_STRING"])
            if "HTTP_AUTHORIZATION" not in environ and "open" not in environ["QUERY_STRING"]:
                start_response("401 Unauthorized", [("WWW-Authenticate", "Basic"), ("Content-Length", "4")])
                return [b"who?"]
            return application(environ, start_response)

        return guarded

    assert refused(server) == ("401", "who?")
    server.session(path="/engine.io/?open")
    assert seen == ["EIO=4&transport=webtransport", "EIO=4&transport=webtransport&open"]


def test_headers_of_listeners(both: Any) -> None:
    server = both()
    server.server.on("headers", lambda headers, request: headers.add("X-Served-By", "us"))
    client = server.client()
    assert client.response(client.request())["x-served-by"] == "us"


def test_a_server_without_the_transport_has_no_webtransport_server(short_lived: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="webtransport"):
        WebTransportServer(0, engineio_wsgi.Server(), **short_lived)


@pytest.mark.parametrize("wrong", [{"certfile": "/nowhere"}, {"certfile": __file__}, {"keyfile": "/nowhere"}], ids=str)
def test_files_that_cannot_be_used(short_lived: dict[str, str], wrong: dict[str, str]) -> None:
    server = engineio_wsgi.Server(transports=TRANSPORTS)
    with pytest.raises(ConfigurationError, match="certificate"):
        WebTransportServer(0, server, **{**short_lived, **wrong})


def test_a_certificate_that_is_renewed(serve: Any, short_lived: dict[str, str], tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    served = serve(app="echo", transports=TRANSPORTS)
    around = WebTransportServer(("127.0.0.1", 0), served.server, **files)
    around.start()
    clients = [Client(around.address)]
    first = clients[0].open()
    first.handshake()
    for name, path in short_lived.items():
        Path(files[name]).write_bytes(Path(path).read_bytes())
    around.reload_certificate()
    clients.append(Client(around.address))
    second = clients[1].open()
    second.handshake()
    serials = [client.quic.tls._peer_certificate.serial_number for client in clients]
    assert serials[0] != serials[1]
    assert [stream.send("4hello").packet() for stream in (first, second)] == ["4hello", "4hello"]
    Path(files["keyfile"]).write_text("no key")
    with pytest.raises(ConfigurationError, match="the certificate of a WebTransportServer cannot be used"):
        around.reload_certificate()
    clients.append(Client(around.address))
    assert clients[2].quic.tls._peer_certificate.serial_number == serials[1]
    for client in clients:
        client.stop()
    around.stop(timeout=0)


def test_an_address_that_is_taken(both: Any, short_lived: dict[str, str]) -> None:
    server = both()
    with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:"):
        WebTransportServer(server.served.address, server.server, **short_lived).start()


@pytest.mark.parametrize(("options", "status"), [
    ({"path": "/elsewhere"}, "501"), ({"method": "GET", "protocol": ""}, "404"), ({"protocol": "websocket"}, "404"),
])  # fmt: skip
def test_other_requests(both: Any, options: dict[str, str], status: str) -> None:
    server = both(app=None)
    client = server.client()
    assert client.response(client.request(**options))[":status"] == status


def test_an_application_that_serves_the_rest(both: Any, short_lived: dict[str, str]) -> None:
    server = both()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/fails":
            raise ZeroDivisionError
        start_response("200 OK", [("Connection", "close")])
        return [b"a page"]

    around = WebTransportServer(("127.0.0.1", 0), server.server.wrap(application), **short_lived)
    around.start()
    client = Client(around.address)
    assert client.response(client.request("/page"))[":status"] == "404"
    client.open().handshake()
    client.stop()
    around.stop(timeout=0)


@pytest.mark.complains
def test_an_application_that_fails(serve: Any, short_lived: dict[str, str]) -> None:
    served = serve(app=None, transports=TRANSPORTS)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        raise ZeroDivisionError

    around = WebTransportServer(("127.0.0.1", 0), application, **short_lived)
    around.start()
    client = Client(around.address)
    assert client.response(client.request("/page"))[":status"] == "500"
    client.stop()
    around.stop(timeout=0)
    assert served.server.clients_count == 0


@pytest.mark.complains
def test_a_response_that_cannot_be_sent(both: Any, caplog: pytest.LogCaptureFixture) -> None:
    server = both()
    server.server.on("headers", lambda headers, request: headers.add("X-Price", "5 €"))
    client = server.client()
    assert client.response(client.request())[":status"] == "500"
    assert "the application failed; the WebTransport session is refused" in caplog.text


def test_metrics(both: Any) -> None:
    server = both(app=None)
    registry = CollectorRegistry()
    observe(server.server, registry)
    server.server.on("connection", lambda socket: socket.on("message", socket.send))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"engineio_{name}", {"path": "/engine.io", **labels})

    stream = server.session()
    stream.send("4hello", b"\x00\x01").packet()
    stream.packet()
    assert value("sessions", transport="webtransport", protocol="4") == 1
    assert value("handshakes_total", transport="webtransport") == 1
    assert value("messages_received_total", transport="webtransport") == 2
    assert value("messages_sent_total", transport="webtransport") == 2
    # those of the frames: the first packet comes before the session
    assert value("received_bytes_total", transport="webtransport") == 7 + 3
    assert server.open().send("4no handshake").wait_closed()
    polling = open_session(server.served, "polling")
    upgrade_to(server.open(), polling.sid)
    server.events.wait("upgrade")
    assert value("upgrades_finished_total", outcome="won") == 1
    assert server.open().send('0{"sid":"unknown"}').wait_closed()
    assert value("refusals_total", code="1") == 1


# -- back-pressure


def test_a_client_that_does_not_read_blocks_the_sender(both: Any) -> None:
    server = both(app="silent", max_buffered=200_000)
    client = server.client(window=10_000)
    stream = client.open()
    socket = server.server.clients[stream.handshake()["sid"]]
    client.pause_reading(stream)
    count = 0
    with pytest.raises(engineio_wsgi.WriteTimeout):
        while count < 1000:
            socket.send(f"{count} " + "x" * 32_768, timeout=0.05)
            count += 1
    assert 100_000 < socket.buffered <= 200_000 + 33_000
    blocked = gevent.spawn(socket.send, f"{count} last")
    server.served.settle()
    assert not blocked.ready()
    client.resume_reading(stream)
    received = [str(stream.packet())[1:].split()[0] for _ in range(count + 1)]
    assert received == [str(index) for index in range(count + 1)], "what timed out was not queued"
    blocked.get(timeout=60)
    assert socket.flush(timeout=60)
    assert socket.buffered == 0


def test_a_listener_that_blocks_slows_its_client_down(both: Any) -> None:
    server = both(app=None, max_inbox=50_000)
    go_on = gevent.event.Event()
    received: list[int] = []

    @server.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            go_on.wait()
            received.append(int(data.split()[0]))

    stream = server.session()
    other = server.session()
    count = 200
    stream.send(*[f"4{index} " + "x" * 10_000 for index in range(count)])
    other.send("40 x")
    # the window of the stream is the limit on what the server keeps
    client = stream.client
    client.wait(lambda: client.is_blocked(stream))
    assert client.sent(stream) < 1_000_000
    go_on.set()
    client.wait(lambda: len(received) == count + 1)
    assert sorted(received) == [0, *range(count)]


def test_a_client_that_takes_nothing_is_closed(both: Any) -> None:
    server = both(app="silent", ping_interval=0.2, ping_timeout=0.2)
    client = server.client(window=10_000)
    stream = client.open()
    socket = server.server.clients[stream.handshake()["sid"]]
    client.pause_reading(stream)
    socket.send("x" * 1_000_000)
    while not server.events.of("close"):
        stream.send("3")
        gevent.sleep(0.02)
    assert server.events.wait("close")["reason"] == "client too slow"
