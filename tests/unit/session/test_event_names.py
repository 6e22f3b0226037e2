"""Mistakes in registering listeners: each is refused when it is made, by a line that names what was meant."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.fakesession import opened

from engineio_wsgi import ConfigurationError, Cors, Server
from engineio_wsgi.session.event_names import SERVER_EVENTS, SESSION_EVENTS

OF_A_SESSION = "is not an event of a server; did you mean a session's: socket.on('{}') in a 'connection' listener?"
SERVER_MISTAKES = {
    "connect": "'connect' is not an event of a server; did you mean 'connection'?",
    "conection": "'conection' is not an event of a server; did you mean 'connection'?",
    "connectionError": "'connectionError' is not an event of a server; did you mean 'connection_error'?",
    "disconnect": f"'disconnect' {OF_A_SESSION.format('close')}",
    "message": f"'message' {OF_A_SESSION.format('message')}",
    "massage": f"'massage' {OF_A_SESSION.format('message')}",
    "sold": "'sold' is not an event of a server; there are cluster_back, cluster_lost, connection, connection_error, drain, "
            "flush, headers, initial_headers, leave, resume; an event of your own has a colon in its name, such as 'shop:sold'",
}
SESSION_MISTAKES = {
    "massage": "'massage' is not an event of a session; did you mean 'message'?",
    "packetCreate": "'packetCreate' is not an event of a session; did you mean 'packet_create'?",
    "disconnect": "'disconnect' is not an event of a session; did you mean 'close'?",
    "connection": "'connection' is not an event of a session; did you mean the server's: server.on('connection')?",
    "connect": "'connect' is not an event of a session; did you mean the server's: server.on('connection')?",
}


async def coroutine(*args: Any) -> bool:
    """Would let everybody in: what it returns is true."""
    return False


async def asynchronous_generator(*args: Any) -> Any:
    """Made, and never run."""
    yield


def generator(*args: Any) -> Iterator[None]:
    """Made, and never run."""
    yield


class Caller:
    """An object whose call is a coroutine."""

    async def __call__(self, *args: Any) -> None:
        """Never awaited."""


NEVER_RUN = [coroutine, asynchronous_generator, generator, Caller(), functools.partial(coroutine, 1)]


def said(call: Callable[..., object], *args: Any) -> str:
    """What the refusal of a call says."""
    with pytest.raises(ConfigurationError) as caught:
        call(*args)
    return str(caught.value)


@pytest.mark.parametrize("method", ["on", "once", "emit"])
@pytest.mark.parametrize(("event", "text"), SERVER_MISTAKES.items(), ids=list(SERVER_MISTAKES))
def test_an_event_that_a_server_does_not_have(method: str, event: str, text: str) -> None:
    assert said(getattr(Server(), method), event) == text


@pytest.mark.parametrize("method", ["on", "once", "emit"])
@pytest.mark.parametrize(("event", "text"), SESSION_MISTAKES.items(), ids=list(SESSION_MISTAKES))
def test_an_event_that_a_session_does_not_have(method: str, event: str, text: str) -> None:
    socket, _ = opened()
    assert said(getattr(socket, method), event) == text


def test_a_decorator_without_the_name_of_an_event() -> None:
    server = Server()
    text = "on() and once() expect the name of an event, such as 'connection'; got a function: write @….on('connection')"
    assert said(lambda: server.on(lambda socket: None)) == text
    assert said(lambda: server.once(lambda socket: None)) == text
    socket, _ = opened()
    assert "got a function: write @….on('message')" in said(lambda: socket.on(lambda data: None))


def test_the_events_that_there_are_and_an_applications_own() -> None:
    server = Server()
    for event in [*SERVER_EVENTS, "shop:sold"]:
        server.on(event, print)
        assert server.listeners(event) == [print]
    socket, _ = opened()
    for event in [*SESSION_EVENTS, "shop:sold"]:
        socket.on(event, print)
        assert socket.listeners(event) == [print]
    assert not Server().emit("shop:sold")


@pytest.mark.parametrize("function", NEVER_RUN)
def test_a_function_whose_body_would_never_run(function: Any) -> None:
    server = Server()
    socket, _ = opened()
    for call in (server.on, server.once, socket.on, socket.once):
        event = "connection" if call.__self__ is server else "message"
        text = said(call, event, function)
        assert text.startswith(f"a listener of '{event}' must be a plain function, which may block; ")
        assert text.endswith(("nothing awaits it", "nothing iterates over it"))
    assert said(socket.spawn, function).startswith("what spawn() runs must be a plain function")
    assert said(lambda: socket.send("", callback=function)).startswith("a callback of send() must be a plain function")
    assert socket.buffered == 0


@pytest.mark.parametrize("option", ["allow_request", "generate_id", "subprotocols", "cors"])
def test_an_option_that_would_never_be_asked(option: str) -> None:
    assert said(lambda: Server(**{option: coroutine})) == (
        f"{option} must be a plain function, which may block; coroutine is a coroutine function (async def), and nothing "
        "awaits it")
    assert said(lambda: Cors(origins=["https://example.org", coroutine])).startswith("cors must be a plain function")
