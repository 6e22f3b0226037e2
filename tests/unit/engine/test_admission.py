"""The checks of a request: what each refuses, with which text, and which comes first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi.engine.admission import CheckedRequest, RequestKind, ask_application, check_request
from engineio_wsgi.errors import ErrorCode, Forbidden, RequestRefused
from engineio_wsgi.options.options import Options
from engineio_wsgi.session.state import SessionState
from engineio_wsgi.transports import transports

HANDSHAKE_HEADERS = {
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_KEY": "AAAAAAAAAAAAAAAAAAAAAA==",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


def session(transport: str = "polling", protocol: int = 4, state: SessionState = SessionState.OPEN,
            overdue: bool = False) -> Any:
    """What is looked at of a session; ``ended`` is what it was ended with."""
    ended: list[str] = []
    heartbeat = SimpleNamespace(overdue=lambda: overdue)
    return SimpleNamespace(transport=transports[transport], protocol=protocol, state=state, catch_up=lambda: None,
                           heartbeat=heartbeat, ended=ended, end=lambda reason, description: ended.append(str(reason)))


def ask(query: str, *, method: str = "GET", upgrade: bool = False, sessions: dict[str, Any] | None = None,
        environ: dict[str, str] | None = None, **options: Any) -> CheckedRequest:
    """The checked request for ``?query``."""
    whole: dict[str, Any] = {"REQUEST_METHOD": method, "QUERY_STRING": query, **(environ or {})}
    return check_request(whole, Options(**options), sessions or {}, upgrade)


def refusal(query: str, **how: Any) -> RequestRefused:
    """Why a request is refused."""
    with pytest.raises(RequestRefused) as refused:
        ask(query, **how)
    return refused.value


# -- handshakes


@pytest.mark.parametrize(("transport", "upgrade"), [("polling", False), ("websocket", True)])
def test_a_handshake(transport: str, upgrade: bool) -> None:
    checked = ask(f"EIO=4&transport={transport}&t=abc", upgrade=upgrade)
    query = {"EIO": "4", "transport": transport, "t": "abc"}
    assert checked == CheckedRequest(RequestKind.HANDSHAKE, transport, query, 4, None)


def test_an_empty_session_id_is_none() -> None:
    assert ask("EIO=4&transport=polling&sid=").kind is RequestKind.HANDSHAKE


@pytest.mark.parametrize("query", ["EIO=4", "EIO=4&transport=", "EIO=4&transport=tobi", "EIO=4&transport=flashsocket",
                                   "EIO=4&transport=Polling", "EIO=4&transport=polling%00", ""])
def test_a_transport_that_is_not_served(query: str) -> None:
    refused = refusal(query)
    assert refused.code is ErrorCode.TRANSPORT_UNKNOWN
    assert refused.status == "400 Bad Request"


def test_a_transport_that_these_options_leave_out() -> None:
    assert refusal("EIO=4&transport=polling", transports=("websocket",)).code is ErrorCode.TRANSPORT_UNKNOWN
    flash = ask("EIO=4&transport=flashsocket", upgrade=True, transports=("polling", "websocket", "flashsocket"))
    assert flash.transport == "flashsocket"


def test_what_is_logged_of_a_query_is_cut_short() -> None:
    assert refusal("transport=" + "x" * 9000).context == {"transport": "x" * 40}
    assert refusal("EIO=4&transport=polling&sid=" + "x" * 9000).context == {"sid": "x" * 80}
    assert refusal("transport=polling&EIO=" + "9" * 9000).context["protocol"] == "9" * 8
    method = refusal("EIO=4&transport=polling&sid=a", method="X" * 9000, sessions={"a": session()})
    assert method.context == {"name": "METHOD", "method": "X" * 16}


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS", "get"])
def test_a_handshake_by_another_method(method: str) -> None:
    refused = refusal("EIO=4&transport=polling", method=method)
    assert refused.code is ErrorCode.BAD_HANDSHAKE_METHOD
    assert refused.context == {"method": method}


def test_a_websocket_without_an_upgrade_names_the_missing_headers() -> None:
    refused = refusal("EIO=4&transport=websocket")
    assert refused.code is ErrorCode.BAD_REQUEST
    missing = "Upgrade: websocket, Connection: Upgrade, Sec-WebSocket-Key, Sec-WebSocket-Version: 13"
    assert refused.message == f"Bad request: not a WebSocket handshake; missing: {missing}"
    assert refused.context == {"name": "TRANSPORT_HANDSHAKE_ERROR", "transport": "websocket", "missing": missing}


@pytest.mark.parametrize("left_out", HANDSHAKE_HEADERS)
def test_a_websocket_with_a_header_left_out_names_that(left_out: str) -> None:
    environ = {name: value for name, value in HANDSHAKE_HEADERS.items() if name != left_out}
    missing = refusal("EIO=4&transport=websocket", environ=environ).context["missing"]
    assert missing.upper().replace("-", "_").partition(":")[0] == left_out.removeprefix("HTTP_")


def test_a_websocket_with_all_headers_blames_the_server() -> None:
    refused = refusal("EIO=4&transport=websocket", environ=HANDSHAKE_HEADERS)
    assert refused.context["missing"] == "a server that can upgrade connections"


def test_polling_with_an_upgrade() -> None:
    refused = refusal("EIO=4&transport=polling", upgrade=True)
    assert refused.code is ErrorCode.BAD_REQUEST
    assert refused.context == {"name": "TRANSPORT_HANDSHAKE_ERROR", "transport": "polling"}


def test_jsonp_has_to_be_asked_for() -> None:
    assert refusal("EIO=4&transport=polling&j=0").context == {"name": "JSONP_DISABLED", "option": "jsonp"}
    assert ask("EIO=4&transport=polling&j=0", jsonp=True).query["j"] == "0"


# -- revisions


@pytest.mark.parametrize(("query", "protocol"), [("EIO=1&", 1), ("EIO=2&", 2), ("EIO=3&", 3), ("EIO=4&", 4), ("", 3)])
def test_a_revision_that_is_served(query: str, protocol: int) -> None:
    assert ask(f"{query}transport=polling", allow_eio3=True).protocol == protocol


@pytest.mark.parametrize("query", ["EIO=1&", "EIO=2&", "EIO=3&", ""])
def test_an_old_revision_has_to_be_allowed(query: str) -> None:
    refused = refusal(f"{query}transport=polling")
    assert refused.code is ErrorCode.UNSUPPORTED_PROTOCOL_VERSION
    assert refused.context["option"] == "allow_eio3"
    asked = query[4:5] or "3"
    assert refused.explanation == f"the client speaks {asked}, this server 4; the server's option allow_eio3=True adds 1 to 3"


@pytest.mark.parametrize("asked", ["0", "5", "44", "-4", "4.0", "04", " 4", "", "x"])
def test_a_revision_that_there_is_not(asked: str) -> None:
    refused = refusal(urlencode({"EIO": asked, "transport": "polling"}), allow_eio3=True)
    assert refused.code is ErrorCode.UNSUPPORTED_PROTOCOL_VERSION
    assert refused.message == f"Unsupported protocol version: the client speaks {asked}, this server 4"


def test_what_a_client_speaks_is_told_in_ascii() -> None:
    refused = refusal(urlencode({"EIO": "ü\r\n<", "transport": "polling"}))
    assert refused.message == r"Unsupported protocol version: the client speaks \xfc\r\n<, this server 4"


# -- requests that name a session


def test_an_unknown_session() -> None:
    refused = refusal("EIO=4&transport=polling&sid=b", sessions={"a": session()})
    assert refused.code is ErrorCode.SESSION_UNKNOWN
    assert refused.context == {"sid": "b"}


@pytest.mark.parametrize(("method", "kind"), [("GET", RequestKind.POLL), ("POST", RequestKind.POST)])
def test_what_a_session_that_polls_asks_for(method: str, kind: RequestKind) -> None:
    member = session()
    checked = ask("EIO=4&transport=polling&sid=a", method=method, sessions={"a": member})
    assert (checked.kind, checked.session) == (kind, member)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "OPTIONS"])
def test_another_method_in_a_session(method: str) -> None:
    refused = refusal("EIO=4&transport=polling&sid=a", method=method, sessions={"a": session()})
    assert refused.context == {"name": "METHOD", "method": method}


@pytest.mark.parametrize(("asked", "had"), [("4", 3), ("3", 4), ("2", 3), ("9", 4)])
def test_another_revision_than_the_sessions(asked: str, had: int) -> None:
    refused = refusal(f"EIO={asked}&transport=polling&sid=a", sessions={"a": session(protocol=had)}, allow_eio3=True)
    assert refused.code is ErrorCode.BAD_REQUEST
    assert refused.context == {"name": "PROTOCOL_MISMATCH", "got": 0 if asked == "9" else int(asked), "session": had}


@pytest.mark.parametrize(("asked", "had"), [("polling", "websocket"), ("websocket", "polling")])
def test_another_transport_than_the_sessions(asked: str, had: str) -> None:
    refused = refusal(f"EIO=4&transport={asked}&sid=a", sessions={"a": session(had)})
    assert refused.context == {"name": "TRANSPORT_MISMATCH", "got": asked, "session": had}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_ordinary_request_for_a_websocket_session(method: str) -> None:
    refused = refusal("EIO=4&transport=websocket&sid=a", method=method, sessions={"a": session("websocket")})
    assert refused.context == {"name": "TRANSPORT_HANDSHAKE_ERROR", "transport": "websocket"}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_session_whose_time_is_up_is_gone(method: str) -> None:
    member = session(overdue=True)
    refused = refusal("EIO=4&transport=polling&sid=a", method=method, sessions={"a": member})
    assert refused.code is ErrorCode.SESSION_UNKNOWN
    assert member.ended == ["ping timeout"]


def test_what_a_websocket_session_has_not_read_yet_may_be_a_sign_of_life() -> None:
    member = session("websocket", overdue=True)
    refused = refusal("EIO=4&transport=polling&sid=a", sessions={"a": member})
    assert (refused.context["name"], member.ended) == ("TRANSPORT_MISMATCH", [])


# -- upgrades


def test_an_upgrade() -> None:
    member = session()
    checked = ask("EIO=4&transport=websocket&sid=a", upgrade=True, sessions={"a": member})
    assert (checked.kind, checked.transport, checked.session) == (RequestKind.UPGRADE, "websocket", member)


def test_upgrades_that_are_not_allowed() -> None:
    refused = refusal("EIO=4&transport=websocket&sid=a", upgrade=True, sessions={"a": session()}, allow_upgrades=False)
    assert refused.context == {"name": "NO_UPGRADE", "option": "allow_upgrades"}
    assert ask("EIO=4&transport=websocket", upgrade=True, allow_upgrades=False).kind is RequestKind.HANDSHAKE


def test_a_websocket_for_a_session_that_has_upgraded_is_taken_and_closed_later() -> None:
    member = session("websocket", state=SessionState.UPGRADED)
    assert ask("EIO=4&transport=websocket&sid=a", upgrade=True, sessions={"a": member}).session is member
    refused = refusal("EIO=4&transport=polling&sid=a", upgrade=True, sessions={"a": member})
    assert refused.context == {"name": "NO_UPGRADE", "from": "websocket", "to": "polling"}


def test_a_second_upgrade_at_a_time() -> None:
    refused = refusal("EIO=4&transport=websocket&sid=a", upgrade=True, sessions={"a": session(state=SessionState.UPGRADING)})
    assert refused.context == {"name": "UPGRADE_UNDER_WAY"}


@pytest.mark.parametrize(("had", "asked"), [("websocket", "websocket"), ("websocket", "polling"), ("polling", "polling")])
def test_only_upwards(had: str, asked: str) -> None:
    refused = refusal(f"EIO=4&transport={asked}&sid=a", upgrade=True, sessions={"a": session(had)})
    assert refused.context == {"name": "NO_UPGRADE", "from": had, "to": asked}


# -- which of several reasons is given, and whatever else may come


@pytest.mark.parametrize(
    ("query", "how", "code"),
    [
        ("EIO=9&transport=tobi&sid=x", {"method": "PUT"}, ErrorCode.TRANSPORT_UNKNOWN),
        ("EIO=9&transport=polling&sid=x", {"method": "PUT"}, ErrorCode.SESSION_UNKNOWN),
        ("EIO=9&transport=websocket", {"method": "PUT"}, ErrorCode.BAD_HANDSHAKE_METHOD),
        ("EIO=9&transport=websocket&j=1", {}, ErrorCode.BAD_REQUEST),
        ("EIO=9&transport=polling&j=1", {}, ErrorCode.UNSUPPORTED_PROTOCOL_VERSION),
    ],
)
def test_the_first_reason_counts(query: str, how: dict[str, Any], code: ErrorCode) -> None:
    assert refusal(query, **how).code is code


WORDS = st.sampled_from(["", "a", "b", "0", "3", "4", "5", "polling", "websocket", "tobi"]) | st.text(max_size=5)
QUERIES = st.dictionaries(st.sampled_from(["EIO", "transport", "sid", "j", "t"]), WORDS)


@given(
    query=QUERIES,
    method=st.sampled_from(["GET", "POST", "PUT"]),
    upgrade=st.booleans(),
    member=st.builds(session, st.sampled_from(["polling", "websocket"]), st.sampled_from([3, 4])),
    allow_eio3=st.booleans(),
)
def test_whatever_is_asked_is_refused_or_fits(query: dict[str, str], method: str, upgrade: bool, member: Any,
                                              allow_eio3: bool) -> None:
    try:
        checked = ask(urlencode(query), method=method, upgrade=upgrade, sessions={"a": member}, allow_eio3=allow_eio3)
    except RequestRefused as refused:
        assert refused.status == "400 Bad Request"
        return
    assert checked.transport == query["transport"]
    if checked.session is None:
        assert (checked.kind, method) == (RequestKind.HANDSHAKE, "GET")
        assert not query.get("sid")
        assert checked.protocol == 4 or allow_eio3
        assert upgrade == (checked.transport == "websocket")
    else:
        assert (query["sid"], checked.session, checked.protocol) == ("a", member, member.protocol)
        assert checked.kind is (RequestKind.UPGRADE if upgrade else {"GET": RequestKind.POLL, "POST": RequestKind.POST}[method])


# -- what the application says


@pytest.mark.parametrize("said", [True, 1, "yes"])
def test_the_application_lets_in(said: object) -> None:
    asked: list[object] = []
    request = object()
    ask_application(lambda request: asked.append(request) or said, request)
    assert asked == [request]


@pytest.mark.parametrize("said", [False, 0, ""])
def test_the_application_refuses(said: object) -> None:
    with pytest.raises(Forbidden) as refused:
        ask_application(lambda request: said, object())
    assert (refused.value.message, refused.value.context) == ("Forbidden", {})


async def _coroutine() -> bool:
    return True


@pytest.mark.parametrize(("allow", "returned"), [
    (lambda request: None, "None"), (lambda request: _coroutine(), "an awaitable (coroutine), which nothing awaits"),
])
def test_the_application_says_nothing(allow: Any, returned: str) -> None:
    with pytest.raises(Forbidden) as refused:
        ask_application(allow, object())
    assert (refused.value.message, refused.value.context["returned"]) == ("Forbidden", returned)


def test_the_application_refuses_in_its_own_words() -> None:
    why = Forbidden("log in first", {"user": None})

    def allow(request: object) -> bool:
        raise why

    with pytest.raises(Forbidden) as refused:
        ask_application(allow, object())
    assert refused.value is why


@pytest.mark.complains
def test_an_application_that_fails_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Forbidden) as refused:
        ask_application(lambda request: 1 / 0, object())
    assert refused.value.message == "Forbidden", "why is nobody's business"
    assert refused.value.context["name"] == "ALLOW_REQUEST_FAILED"
    assert isinstance(refused.value.context["error"], ZeroDivisionError)
    assert "allow_request failed; the handshake is refused" in caplog.text
    assert "ZeroDivisionError" in caplog.text
