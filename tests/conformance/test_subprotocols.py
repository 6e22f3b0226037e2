"""Sub-protocols of WebSockets: which of those that a client offers is agreed on, and what the application sees of it."""

from __future__ import annotations

from typing import Any

import pytest
from support.clients import PollingSession, WebSocketSession
from support.rawwebsocket import Refused

OFFER = "Sec-WebSocket-Protocol"


def agreed(served: Any, offered: str | None, **query: str) -> str | None:
    """What the server answers to an offer; the session works."""
    headers = [] if offered is None else [(OFFER, offered)]
    session = WebSocketSession(served, 4, headers, **query)
    if query:
        session.send("2probe")
        assert session.recv() == "3probe"
    else:
        session.open().say("hello")
        assert session.hear() == "hello"
    protocols = session.ws.response.headers(OFFER)
    assert len(protocols) < 2
    return protocols[0] if protocols else None


@pytest.mark.own_handler
def test_the_first_that_is_offered(serve: Any) -> None:
    served = serve()
    assert agreed(served, "chat") == "chat"
    assert agreed(served, "v2.chat, chat") == "v2.chat"
    assert agreed(served, None) is None


@pytest.mark.own_handler
def test_of_an_upgrade(serve: Any) -> None:
    served = serve()
    assert agreed(served, "chat, b", sid=PollingSession(served).open().sid) == "chat"


@pytest.mark.parametrize("offered", ["", ",", "a,,b", "a,", "a, a", "a b", "a;b", "a/b", '"a"'])
def test_a_malformed_offer_is_refused(serve: Any, offered: str) -> None:
    served = serve()
    if served.handler == "stock":
        # it has accepted the WebSocket by then, and looks at no offer
        return
    with pytest.raises(Refused) as refused:
        agreed(served, offered)
    assert refused.value.response.status == 400


@pytest.mark.ours
@pytest.mark.own_handler
def test_the_servers_preference(serve: Any) -> None:
    served = serve(subprotocols=["new", "old"])
    assert agreed(served, "old, new") == "new"
    assert agreed(served, "other, old") == "old"
    assert agreed(served, "other") is None
    assert agreed(served, None) is None
    assert agreed(serve(subprotocols=()), "chat") is None


@pytest.mark.ours
@pytest.mark.own_handler
def test_the_applications_choice(serve: Any) -> None:
    seen: list[Any] = []

    def choose(offered: list[str], request: Any) -> str | None:
        seen.append((offered, request.args["EIO"]))
        return request.args.get("want")

    served = serve(subprotocols=choose)
    polling = PollingSession(served).open()
    assert agreed(served, "a, b", want="b", sid=polling.sid) == "b"
    assert agreed(served, "a, b") is None
    assert agreed(served, None) is None
    assert seen == [(["a", "b"], "4"), (["a", "b"], "4")]


@pytest.mark.ours
@pytest.mark.own_handler
@pytest.mark.complains
def test_a_choice_that_fails_agrees_on_nothing(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(offered: list[str], request: Any) -> str | None:
        raise RuntimeError("no database")

    assert agreed(serve(subprotocols=broken), "a") is None
    assert "no database" in caplog.text
    assert agreed(serve(subprotocols=lambda offered, request: "c"), "a, b") is None
    assert "'c', which was not offered" in caplog.text


@pytest.mark.ours
@pytest.mark.own_handler
def test_the_application_sees_what_was_agreed_on(serve: Any) -> None:
    served = serve()
    session = WebSocketSession(served, 4, [(OFFER, "chat, b")]).open()
    assert served.socket(session.sid).transport.subprotocol == "chat"
    polling = PollingSession(served).open()
    candidate = WebSocketSession(served, 4, [(OFFER, "b")], sid=polling.sid)
    candidate.send("2probe")
    candidate.recv()
    candidate.send("5", "4moved")
    assert candidate.recv() == "4moved"
    assert served.socket(polling.sid).transport.subprotocol == "b"
    plain = WebSocketSession(served).open()
    assert served.socket(plain.sid).transport.subprotocol is None


@pytest.mark.ours
@pytest.mark.own_handler
@pytest.mark.complains
def test_a_listener_may_change_it(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    changes: list[Any] = [lambda headers: headers.set(OFFER, "b"), lambda headers: headers.pop(OFFER, None),
                          lambda headers: headers.set(OFFER, "c")]
    served = serve()
    change = served.server.on("headers", lambda headers, request: changes.pop(0)(headers))
    assert [agreed(served, "a, b") for _ in range(3)] == ["b", None, None]
    assert "'c', which was not offered" in caplog.text
    assert change is not None
