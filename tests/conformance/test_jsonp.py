"""JSONP polling: scripts in, forms out."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support import codec
from support.clients import PollingSession
from support.rawhttp import Response

from engineio_wsgi import Bundle

FORM = ("Content-Type", "application/x-www-form-urlencoded")
TEXTS = [
    "plain",
    "\"quotes\" and 'more'",
    "back\\slash",
    "\\n",
    "\\\\n",
    "a\nb",
    "\r\n",
    "\u2028\u2029",
    "\U0001f600 é",
    "</script><script>alert(1)</script>",
    "<!-- -->",
    "]]>",
    "a+b%20c&d=e",
    "\x00\x1f\x7f",
    ");alert(1);//",
]


class JsonpSession(PollingSession):
    """A polling client whose responses are scripts and whose bodies are forms."""

    def __init__(self, served: Any, eio: int, j: str = "0") -> None:
        super().__init__(served, eio, j=j, b64="1")
        self.index = j

    def _packets(self, response: Response) -> list[codec.Packet]:
        self.last = response
        assert response.status == 200, response.body
        return codec.decode(evaluate(response, self.index).encode(), self.eio, "text/plain;charset=utf-8")

    def post(self, *packets: codec.Packet) -> Response:
        return self.posting.post(self.target(), codec.jsonp_form(codec.encode(packets, self.eio)), [FORM])


def evaluate(response: Response, index: str) -> str:
    """What the script calls the client's function with; the script has to be one that a browser runs safely."""
    script = response.text
    match = re.fullmatch(r"___eio\[(\d*)\]\((.*)\);?", script, re.DOTALL)
    assert match, script
    assert match[1] == index
    assert not re.search("[\u2028\u2029\n\r]", match[2])
    value = json.loads(match[2])
    assert isinstance(value, str)
    return value


def test_round_trip(serve: Any, eio: int) -> None:
    session = JsonpSession(serve(jsonp=True), eio).open()
    session.say(*TEXTS, b"\x00\xff")
    assert session.hear_many(len(TEXTS) + 1) == [*TEXTS, b"\x00\xff"]


@pytest.mark.ours
def test_a_bundle(serve: Any, eio: int) -> None:
    session = JsonpSession(serve(app="silent", jsonp=True), eio).open()
    bundle = Bundle(*TEXTS, b"\x00\xff")
    session.served.socket(session.sid).send(bundle)
    assert session.hear_many(len(bundle)) == list(bundle)


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_one_text(serve: Any, text: str) -> None:
    session = JsonpSession(serve(jsonp=True), 4).open()
    session.say(text)
    assert session.hear() == text


@pytest.mark.differs("leaves the markup in")
def test_markup_never_stands_in_the_script(serve: Any) -> None:
    session = JsonpSession(serve(jsonp=True), 4).open()
    session.say("</script>", "<!--", "</SCRIPT >")
    session.hear_many(3)
    assert session.last is not None
    body = session.last.text.lower()
    assert "</script" not in body
    assert "<!--" not in body


def test_headers(serve: Any) -> None:
    session = JsonpSession(serve(jsonp=True), 4, "7").open()
    assert session.last is not None
    assert re.match("(text|application)/(javascript|plain)", session.last.header("Content-Type") or "")
    assert session.last.header("Cache-Control") == "no-store"
    answer = session.post("4x")
    assert (answer.status, answer.body) == (200, b"ok")
    assert (answer.header("Content-Type") or "").startswith("text/html")


@pytest.mark.differs("says text/plain and does not forbid sniffing")
def test_a_script_says_that_it_is_one(serve: Any) -> None:
    session = JsonpSession(serve(jsonp=True), 4).open()
    assert session.last is not None
    assert (session.last.header("Content-Type") or "").startswith(("text/javascript", "application/javascript"))


@pytest.mark.differs("drops what is no digit")
@pytest.mark.parametrize("index", ["alert(1)", "0];alert(1);//", "-1", "1.5", "\u0663", " 1"])
def test_an_index_is_digits(serve: Any, index: str) -> None:
    session = JsonpSession(serve(jsonp=True), 4, index)
    response = session.getting.get(session.target())
    assert response.status == 400
    assert response.json()["code"] == 3
    assert "alert" not in response.text


@pytest.mark.differs("serves JSONP to whoever asks")
def test_not_by_default(serve: Any) -> None:
    session = JsonpSession(serve(), 4)
    response = session.getting.get(session.target())
    assert "___eio" not in response.text
    assert "javascript" not in (response.header("Content-Type") or "")


@pytest.mark.differs("answers ok")
@pytest.mark.parametrize("body", [b"", b"x=4hello", b"d=9", b"d=%ff", b"4hello"], ids=repr)
def test_a_bad_form_is_not_ok(serve: Any, body: bytes) -> None:
    session = JsonpSession(serve(jsonp=True), 4).open()
    assert session.posting.post(session.target(), body, [FORM]).status == 400
    assert session.served.events.wait("close")["reason"] in ("parse error", "transport error")


def test_too_large_a_form(serve: Any) -> None:
    session = JsonpSession(serve(jsonp=True, max_http_buffer_size=1000), 4).open()
    assert session.post("4" + "x" * 1001).status == 413


def test_close(serve: Any) -> None:
    session = JsonpSession(serve(jsonp=True, app="told"), 4).open()
    session.park()
    session.send('4["close"]')
    assert session.end_poll() == ["1"]
    assert session.served.events.wait("close")["reason"] == "forced close"
