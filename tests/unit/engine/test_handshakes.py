"""Handshakes: who is asked, in which order, which ids can be used, and what a new session begins with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.fakehooks import ADDRESS, ENVIRON, fake_hooks, made_with_registries
from werkzeug.wrappers import Request

from engineio_wsgi.engine.admission import CheckedRequest, RequestKind
from engineio_wsgi.engine.advice import Advice
from engineio_wsgi.engine.handshakes import INITIAL, Handshakes
from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.errors import ErrorCode, Forbidden, RequestRefused, ServerClosing
from engineio_wsgi.session.socket import Socket
from engineio_wsgi.transports.jsonp import JSONPTransport
from engineio_wsgi.transports.polling import PollingTransport

#: an environ of a server that carries WebSockets
UPGRADABLE = {**ENVIRON, "engineio.websockets": True}


class Made:
    """The handshakes of a server, and its registry."""

    def __init__(self, registry: Registry, **hooks: Any) -> None:
        self.registry = registry
        self.handshakes = Handshakes(registry, fake_hooks(**hooks), Advice())


@pytest.fixture
def make() -> Iterator[Callable[..., Made]]:
    """Makes the handshakes of a server with some hooks and ``options``; its sessions end with the test."""
    yield from made_with_registries(Made)


def checked(**query: str) -> CheckedRequest:
    """A request for a session over polling that passed the checks."""
    return CheckedRequest(RequestKind.HANDSHAKE, "polling", {"EIO": "4", "transport": "polling", **query}, 4, None)


# -- who is admitted


@pytest.mark.parametrize(("in_cluster", "given", "sid"), [(False, "1", "1"), (True, "1", "abcd1"), (True, "abcd1", "abcd1")])
def test_the_id_of_an_admitted_session_names_the_worker_in_a_cluster(make: Any, in_cluster: bool, given: str, sid: str) -> None:
    asked: list[object] = []
    made = make(in_cluster=in_cluster, admit=lambda environ: asked.append(environ) or given)
    environ = dict(ENVIRON)
    assert made.handshakes.admit(environ) == sid
    assert environ[INITIAL] is True
    assert asked == [environ]


def test_a_server_that_closes_does_not_ask_the_application(make: Any) -> None:
    asked: list[object] = []
    made = make(admit=asked.append)
    made.registry.stop_opening()
    environ = dict(ENVIRON)
    with pytest.raises(ServerClosing):
        made.handshakes.admit(environ)
    assert (asked, INITIAL in environ) == ([], False)


def test_an_address_beyond_its_quota_is_refused_before_the_application_is_asked(make: Any) -> None:
    asked: list[object] = []
    made = make(options={"max_handshakes_per_address": 1}, admit=lambda environ: asked.append(environ) or "1")
    made.handshakes.admit(dict(ENVIRON))
    with pytest.raises(Forbidden, match="more than 1 handshakes a minute"):
        made.handshakes.admit(dict(ENVIRON))
    made.handshakes.admit({**ENVIRON, "REMOTE_ADDR": "198.51.100.1"})
    assert len(asked) == 2


# -- what the application is asked


def test_allow_request_is_asked_before_generate_id(make: Any) -> None:
    log: list[tuple[str, str]] = []
    options = {"allow_request": lambda request: log.append(("allow", request.path)) or True}
    made = make(options=options, generate_id=lambda request: log.append(("generate", request.path)) or "abcd1")
    assert made.handshakes.ask_application(dict(ENVIRON)) == "abcd1"
    assert log == [("allow", "/engine.io/"), ("generate", "/engine.io/")]


def test_no_id_is_generated_for_a_client_that_allow_request_refuses(make: Any) -> None:
    generated: list[object] = []
    made = make(options={"allow_request": lambda request: False}, generate_id=generated.append)
    with pytest.raises(Forbidden):
        made.handshakes.ask_application(dict(ENVIRON))
    assert generated == []


def test_generate_id_may_refuse_in_its_own_words(make: Any) -> None:
    why = Forbidden("no ids left")

    def generate(request: Request) -> str:
        raise why

    with pytest.raises(Forbidden) as refused:
        make(generate_id=generate).handshakes.ask_application(dict(ENVIRON))
    assert refused.value is why


@pytest.mark.complains
def test_a_generate_id_that_fails_is_logged_and_the_client_refused(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RequestRefused) as refused:
        make(generate_id=lambda request: 1 / 0).handshakes.ask_application(dict(ENVIRON))
    assert (refused.value.code, refused.value.message) == (ErrorCode.BAD_REQUEST, "Bad request")
    assert refused.value.context["name"] == "ID_GENERATION_ERROR"
    assert isinstance(refused.value.context["error"], ZeroDivisionError)
    assert "generate_id failed; the handshake is refused" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.complains
@pytest.mark.parametrize(("sid", "told"), [(None, "NoneType"), ("", "str"), (b"abcd2", "bytes"), ("taken", "str")])
def test_an_id_that_cannot_be_used_is_refused(make: Any, sid: Any, told: str) -> None:
    made = make(generate_id=lambda request: sid, admit=lambda environ: "taken")
    made.handshakes.open_polling(dict(ENVIRON), checked())
    with pytest.raises(RequestRefused) as refused:
        made.handshakes.ask_application(dict(ENVIRON))
    assert refused.value.code is ErrorCode.BAD_REQUEST
    assert str(refused.value.context["error"]) == f"generate_id must return a new, non-empty str; it returned {told}"


# -- a new session


def test_a_session_over_polling_begins_with_an_open_packet(make: Any) -> None:
    made = make()
    transport, headers = made.handshakes.open_polling(UPGRADABLE, checked())
    assert made.registry.sessions["abcd1"].transport is transport
    body = transport.poll(UPGRADABLE).body.decode()
    assert body[0] == "0"
    assert (json.loads(body[1:])["sid"], json.loads(body[1:])["upgrades"]) == ("abcd1", ["websocket"])
    assert (type(transport), headers) == (PollingTransport, [])


def test_no_upgrade_is_offered_by_a_server_that_carries_no_websockets(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    transport, _ = make().handshakes.open_polling(ENVIRON, checked())
    assert '"upgrades":[]' in transport.poll(ENVIRON).body.decode()
    assert "only polling is offered" in caplog.text


def test_a_client_that_names_a_script_polls_by_jsonp(make: Any) -> None:
    environ = {**UPGRADABLE, "QUERY_STRING": "EIO=4&transport=polling&j=7"}
    transport, _ = make().handshakes.open_polling(environ, checked(j="7"))
    assert isinstance(transport, JSONPTransport)
    assert transport.poll(environ).body.startswith(b"___eio[7](")


@pytest.mark.parametrize(("query", "content_type"), [
    ({}, "application/octet-stream"), ({"b64": "1"}, "text/plain; charset=UTF-8"),
])
def test_a_client_without_binary_gets_base64(make: Any, query: dict[str, str], content_type: str) -> None:
    made = make()
    old = checked(**query)._replace(protocol=3)
    transport, _ = made.handshakes.open_polling(UPGRADABLE, old)
    made.registry.clients["abcd1"].send(b"\x00")
    assert dict(transport.poll(UPGRADABLE).headers)["Content-Type"] == content_type


def test_the_session_cookie_names_the_session(make: Any) -> None:
    made = make(options={"cookie": "io"})
    _, headers = made.handshakes.open_polling(UPGRADABLE, checked())
    ((name, value),) = headers
    assert (name, value.partition(";")[0]) == ("Set-Cookie", "io=abcd1")


def test_the_application_sees_a_session_as_the_hook_makes_it(make: Any) -> None:
    class OurSocket(Socket):
        __slots__ = ()

    session = make(make_socket=OurSocket).handshakes.new_session("abcd1", checked(), dict(ENVIRON))
    assert isinstance(session.socket, OurSocket)
    assert (session.id, session.protocol, session.remote_address) == ("abcd1", 4, ADDRESS)
    assert session.socket.request.path == "/engine.io/"


def test_a_server_that_closes_while_the_application_decides_opens_no_session(make: Any) -> None:
    made = make(admit=lambda environ: made.registry.stop_opening() or "abcd1")
    with pytest.raises(ServerClosing):
        made.handshakes.open_polling(UPGRADABLE, checked())
    assert made.registry.sessions == {}
