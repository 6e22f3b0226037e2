"""Which requests are recognised, and from which nothing is learnt."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engineio_wsgi.http import lane_requests
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.http.lane_requests import FirstRequest, Known, accept, read_first
from engineio_wsgi.http.query import parse_query
from engineio_wsgi.http.request_head import parse_head
from engineio_wsgi.protocol.websocket.batches import accelerated

LINE = "{} /engine.io/?{}EIO=4&transport=polling&t={}{} HTTP/1.1\r\n"
FIELDS = "Host: h\r\nUser-Agent: a\r\n"
LIMITS: Any = WebSocketHandler


def get(t: str = "a", sid: str | None = "s1", own: str = "", fields: str = FIELDS) -> bytes:
    """A GET."""
    return (LINE.format("GET", own, t, "" if sid is None else f"&sid={sid}") + fields + "\r\n").encode()


def post(body: str, before: str = "Host: h\r\n", after: str = "User-Agent: a\r\n") -> bytes:
    """A POST."""
    head = LINE.format("POST", "", "a", "&sid=s1") + f"{before}Content-Length: {len(body)}\r\n{after}\r\n"
    return (head + body).encode()


def known(data: bytes, **environ: str) -> Known | None:
    """What is learnt from a request."""
    head = data[:data.index(b"\r\n\r\n") + 4]
    if head[:1] == b"P":
        environ.setdefault("CONTENT_LENGTH", "1")
    accepted = accept(head, environ, [])
    return None if accepted is None else accepted.learn()


def recognised(first: bytes, second: bytes, limits: Any = LIMITS, **environ: str) -> Any:
    """The second request, as it is recognised after the first."""
    learnt = known(first, **environ)
    assert learnt is not None
    return learnt.recognise(second, limits)


@pytest.mark.parametrize("data", [get("b"), get("", "x.-_~"), get("P9x"), get() + b"more"])
def test_a_get_with_another_id_and_t(data: bytes) -> None:
    sid, revision, head_size, body_size = recognised(get(sid=None), data)
    assert f"&sid={sid} ".encode() in data
    assert (revision, head_size, body_size) == (4, data.index(b"\r\n\r\n") + 4, 0)


@pytest.mark.parametrize("size", [1, 9, 10, 123_456])
def test_a_post_with_another_length(size: int) -> None:
    data = post("x" * size)
    assert recognised(post("4a"), data) == ("s1", 4, len(data) - size, size)


@pytest.mark.parametrize("data", [
    get(fields="Host: h\r\nUser-Agent: b\r\n"), get(fields=FIELDS + "X: y\r\n"), get(fields=FIELDS.lower()), get()[:-1], b"",
    get(own="token=x&"), get("%41"), get("a&j=0"), get(sid=None), get(sid="a b"), get().replace(b"HTTP/1.1", b"HTTP/1.0"),
    get().replace(b"EIO=4", b"EIO=5"), get().replace(b"polling", b"websocket"), get().replace(b"/engine.io/", b"/engine.io"),
    get().replace(b"\r\n", b"\n"), b"\r\n" + get(),
])  # fmt: skip
def test_a_get_that_differs(data: bytes) -> None:
    assert recognised(get(), data) is None


@pytest.mark.parametrize("data", [
    post("4a", after=""), post("4a", before=""), post("4a").replace(b": 2", b": 02"), post("4a").replace(b": 2", b": +2"),
    post("4a").replace(b": 2", b": 2 "), post("4a").replace(b": 2", b": 2,2"), post("4a").replace(b": 2", b": 0"),
    post("4a").replace(b": 2", b": 1000000000"), post("4a").replace(b": 2", b": 2\r\nContent-Length: 2"),
])  # fmt: skip
def test_a_post_that_differs(data: bytes) -> None:
    assert recognised(post("4a"), data) is None


@pytest.mark.parametrize(("name", "limit"), [("max_request_line", 50), ("max_header_size", 20), ("max_header_count", 1)])
def test_limits(name: str, limit: int) -> None:
    assert recognised(get(), get(), type("Small", (WebSocketHandler,), {name: limit})) is None
    assert recognised(get(), get(), type("Enough", (WebSocketHandler,), {name: 10_000})) is not None


def test_the_number_of_headers_is_exact() -> None:
    for data in (get(), post("4a", before="")):
        assert recognised(data, data, type("Enough", (WebSocketHandler,), {"max_header_count": 2})) is not None


@pytest.mark.parametrize("key", ["HTTP_EXPECT", "HTTP_UPGRADE", "HTTP_TRANSFER_ENCODING", "HTTP_X_FORWARDED_FOR", "HTTP_VIA"])
def test_nothing_is_learnt_from_odd_requests_and_proxies(key: str) -> None:
    assert known(get(), **{key: "x"}) is None


@pytest.mark.parametrize("data", [
    get(own="sid=x&"), get(own="j=1&"), get(own="EI%4F=3&"), get(own="transport=x&"), get(own="%73id=x&"),
    get(fields="X: " + "y" * 3000 + "\r\n"),
    b"GET /engine.io/?transport=polling&EIO=4 HTTP/1.1\r\n\r\n", b"GET /engine.io/ HTTP/1.1\r\n\r\n",
    b"PUT /engine.io/?EIO=4&transport=polling HTTP/1.1\r\n\r\n",
])  # fmt: skip
def test_nothing_is_learnt_from_an_odd_query(data: bytes) -> None:
    assert known(data) is None


def test_nothing_is_learnt_from_a_get_with_a_body() -> None:
    assert known(get(), CONTENT_LENGTH="3") is None


# -- the part in C

parts = st.lists(st.sampled_from([
    b"EIO=", b"3", b"4", b"5", b"&transport=polling", b"&t=", b"&b64=1", b"&sid=", b"aB_9", b".~-", b"%", b" HTTP/1.1", b"\r\n",
    b"Content-Length: ", b"0", b"12", b"123456789", b"\xe4", b"",
]), max_size=14).map(b"".join)  # fmt: skip
usual = st.builds(
    lambda before, sid, after: b"EIO=4&transport=polling" + before + b"&sid=" + sid + after + b" HTTP/1.1\r\nA: b\r\n",
    st.sampled_from([b"&t=x", b"&b64=1", b""]), st.sampled_from([b"s1", b""]), st.sampled_from([b"&t=y", b"&", b""]))
lines = st.one_of(parts, usual, st.tuples(usual, parts).map(b"".join))


@settings(max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "200")), deadline=None)
@given(lines, st.sampled_from([b"", b"GET /?"]), st.sampled_from([b"", b"\r\nA: b\r\n", b"\r\n"]),
       st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]), st.integers(0, 1))
@example(b"EIO=4&transport=polling&sid=s HTTP/1.1\r\nA: b\r\n12\r\n\r\nx", b"GET /?", b"\r\nA: b\r\n", b"\r\n\r\n", 0)
def test_matching_is_that_of_the_reference(line: bytes, beginning: bytes, fields: bytes, rest: bytes, cut: int) -> None:
    data = (beginning + line)[cut:]
    assert lane_requests.match(data, beginning, fields, rest) == lane_requests.match_in_python(data, beginning, fields, rest)


@pytest.mark.parametrize("match", [lane_requests.match, lane_requests.match_in_python])
@pytest.mark.parametrize(("length", "size"), [
    (b"1", 1), (b"123456789", 123_456_789), (b"1234567890", None), (b"01", None), (b"", None), (b"1x", None), (b"-1", None),
])
def test_lengths(match: Any, length: bytes, size: int | None) -> None:
    head = b"POST /?EIO=3&transport=polling&sid=s HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\n"
    found = match(head + b"x", b"POST /?", b"\r\nContent-Length: ", b"\r\n\r\n")
    assert found == (None if size is None else ("s", 3, 45, len(head), size))


@pytest.mark.skipif(not accelerated, reason="it is about the part in C")
def test_wrong_arguments_are_refused() -> None:
    for wrong in [(), (b"", b"", b""), (b"", b"", b"", ""), ("", b"", b"", b""), (b"", b"", b"", b"", b"")]:
        with pytest.raises(TypeError):
            lane_requests.match(*wrong)
    for argument in ("", None, bytearray()):
        with pytest.raises(TypeError):
            lane_requests.read_plain(argument)


# -- requests like which none has been accepted yet

PLAIN_FIELDS = "Host: h\r\nConnection: keep-alive\r\nAccept-Encoding: gzip\r\nUser-Agent: a b \r\nX-Empty:\r\n"


def read_both(data: bytes, limits: Any = LIMITS) -> FirstRequest | None:
    """The plain request in ``data``, as both implementations read it."""
    assert lane_requests.read_plain(data) == lane_requests.read_plain_in_python(data)
    return read_first(data, limits)


def test_a_plain_handshake() -> None:
    data = get(sid=None, fields=PLAIN_FIELDS)
    assert read_both(data + b"more") == FirstRequest("/engine.io/", "", False, data, 52, 5, 0, "h", None, None, "gzip")


def test_a_plain_post() -> None:
    data = post("4a", after="origin:http://h\r\ncontent-type: text/plain\r\n")
    assert read_both(data) == FirstRequest("/engine.io/", "s1", True, data[:-2], 60, 4, 2, "h", "http://h", "text/plain", None)


@pytest.mark.parametrize("data", [
    b"", get()[:-1], get(fields=""), get(own="a=b&"), get("%41"), get("a&j=1"), get(sid=""), get(fields="Host: h\r\nHost: h\r\n"),
    get().replace(b"EIO=4", b"EIO=3"), get().replace(b"/engine.io/", b"/engine%2Eio/"),
    get().replace(b"/engine.io/", b"engine.io/"),
    get().replace(b"HTTP/1.1", b"HTTP/1.0"), get().replace(b"\r\n", b"\n"), b"\r\n" + get(), get().replace(b"GET", b"PUT"),
    get(fields="Host: h\r\nConnection: close\r\n"), get(fields="Host: h\r\nContent-Length: 1\r\n"),
    get(fields="Host: h\r\nContent-Length:\r\n").replace(b"GET", b"POST"),
    get(fields="Host: h\r\nContent-Length: 0\r\n"), get(fields="Host: h\r\nX_A: b\r\n"), get(fields="Host: h\r\nX: \x7f\r\n"),
    get(fields="Host: h\r\nX: a\r\n b\r\n"), get(fields="Host : h\r\n"), get(fields="Host: h\r\nX: \tb\r\n"),
    get(fields="Host: \xe4\r\n"),
    get(fields="Host: h\r\nX\r\n"), get(fields="Host: h\r\n: x\r\n"), post("4a").replace(b": 2", b": 0"),
    post("4a").replace(b"&sid=s1", b""),
    post("4a").replace(b": 2", b": 02"), post("4a").replace(b": 2", b": +2"),
    post("4a").replace(b": 2", b": 2\r\nContent-Length: 2"),
    post("4a").replace(b": 2", b": 2 2"), post("4a").replace(b": 2", b": 1234567890"),
    *(get(fields=f"Host: h\r\n{name}: x\r\n") for name in (
        "Expect", "forwarded", "Proxy-Connection", "TRANSFER-ENCODING", "Upgrade", "Via", "X-Forwarded-For", "x-forwarded-proto",
        "X-Real-IP")),
])  # fmt: skip
def test_a_request_that_is_not_plain(data: bytes) -> None:
    assert read_both(data) is None


@pytest.mark.parametrize(("name", "limit"), [("max_request_line", 55), ("max_header_size", 20), ("max_header_count", 1)])
def test_the_limits_of_plain_requests(name: str, limit: int) -> None:
    assert read_both(get(), type("Small", (WebSocketHandler,), {name: limit})) is None
    enough = len(get().partition(b"\r\n")[0]) if name == "max_request_line" else len(FIELDS) if name == "max_header_size" else 2
    assert read_both(get(), type("Enough", (WebSocketHandler,), {name: enough})) is not None


names = st.sampled_from([
    b"Host", b"host", b"Origin", b"Content-Type", b"content-length", b"Content-Length", b"Connection", b"Accept-Encoding",
    b"Cookie", b"X-A", b"Upgrade", b"TE", b"Trailer", b"Keep-Alive", b"Sec-WebSocket-Key", b"Proxy-Connection", b"HTTP2-Settings",
    b"A_B", b"", b"\xe4",
])  # fmt: skip
any_bytes = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=6).map(lambda text: text.encode("latin-1"))
values = st.one_of(
    st.sampled_from([b"h", b"keep-alive", b"close", b"3", b"03", b"http://h", b"a, b", b"websocket", b"", b"chunked"]), any_bytes)
fields = st.lists(st.tuples(names, st.sampled_from([b": ", b":", b":  ", b" : "]), values, st.sampled_from([b"", b" ", b"\t"]),
                            st.sampled_from([b"\r\n"] * 9 + [b"\n"])).map(b"".join), max_size=6).map(b"".join)
plain_lines = st.builds(
    lambda method, path, before, sid,
    after: method + path + b"?EIO=4&transport=polling" + before + sid + after + b" HTTP/1.1\r\n",
    st.sampled_from([b"GET ", b"POST ", b"HEAD ", b"get "]), st.sampled_from([b"/engine.io/", b"/", b"/a~-_./b", b"//",
    b"/\"", b"/%41"]),
    st.sampled_from([b"&t=x", b"&b64=1", b"", b"&t="]), st.sampled_from([b"&sid=s1", b"&sid=", b""]),
    st.sampled_from([b"&t=y", b"&", b""]))


@settings(max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "300")), deadline=None)
@given(plain_lines, fields, st.sampled_from([b"Host: h\r\n", b""]), st.sampled_from([b"\r\n", b"\r\nabc", b""]))
def test_plain_requests_are_valid_and_read_alike(line: bytes, fields: bytes, host: bytes, rest: bytes) -> None:
    data = line + host + fields + rest
    request = read_both(data)
    if request is not None:
        head = parse_head(request.head, LIMITS)
        path, _, query = head.path.partition("?")
        assert (request.path, request.sid, "4") == (path, parse_query(query).get("sid", ""), parse_query(query)["EIO"])
        keys = ("HTTP_HOST", "HTTP_ORIGIN", "CONTENT_TYPE", "HTTP_ACCEPT_ENCODING")
        assert request[-4:] == tuple(map(head.variables.get, keys))
        assert (head.command == "POST", head.length or 0, head.close) == (request.is_post, request.size, False)
        assert len(head.line) == request.line_size
        environ: dict[str, Any] = dict(head.variables)
        assert accept(request.head, environ, []) == request.accepted([])
