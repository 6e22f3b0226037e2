"""The environ is that of gevent's pywsgi over ordinary and odd requests, but for http_environ_differences.csv."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent.pywsgi
import pytest
from support.plain import PlainServer

pytestmark = pytest.mark.ours

ADDED = {"wsgi.file_wrapper", "engineio.socket", "engineio.handler"}
#: different objects, or different for each connection
NOT_COMPARED = {"wsgi.input", "wsgi.errors", "REMOTE_PORT", "SERVER_PORT"}

HOST = "Host: host:80\r\n"
SAME = {
    "the simplest": f"GET / HTTP/1.1\r\n{HOST}\r\n",
    "a query": f"GET /a/b?c=d&e HTTP/1.1\r\n{HOST}\r\n",
    "an empty query": f"GET /a? HTTP/1.1\r\n{HOST}\r\n",
    "two question marks": f"GET /a?b?c HTTP/1.1\r\n{HOST}\r\n",
    "percent-encoding": f"GET /%41%C3%A9%2f%00%zz%?%41 HTTP/1.1\r\n{HOST}\r\n",
    "two slashes": f"GET //a//b/../c HTTP/1.1\r\n{HOST}\r\n",
    "punctuation": f"GET /;a=b,c'(d)*!$&+:@~[]{{}}|\\^`\" HTTP/1.1\r\n{HOST}\r\n",
    "a target beyond ASCII": f"GET /\xc3\xa9%20\xe9?\xe4=%C3%A4 HTTP/1.1\r\n{HOST}\r\n",
    "a fragment": f"GET /a#b HTTP/1.1\r\n{HOST}\r\n",
    "the asterisk": f"OPTIONS * HTTP/1.1\r\n{HOST}\r\n",
    "HTTP/1.0": "GET / HTTP/1.0\r\n\r\n",
    "HTTP/1.0 with a host": f"GET / HTTP/1.0\r\n{HOST}\r\n",
    "other methods": f"PROPFIND / HTTP/1.1\r\n{HOST}\r\n",
    "HEAD": f"HEAD / HTTP/1.1\r\n{HOST}\r\n",
    "a body": f"POST / HTTP/1.1\r\n{HOST}Content-Type: text/plain; charset=x\r\nContent-Length: 3\r\n\r\nabc",
    "an empty body": f"POST / HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n",
    "a body without a type": f"PUT / HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc",
    "a type without a body": f"GET / HTTP/1.1\r\n{HOST}Content-Type: a/b\r\n\r\n",
    "two types": f"GET / HTTP/1.1\r\n{HOST}Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n",
    "chunks": f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "a GET with a body": f"GET / HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc",
    "expectation": f"POST / HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "repeated headers": f"GET / HTTP/1.1\r\n{HOST}X-A: 1\r\nx-a: 2\r\nX-B: 3\r\nX-A:4\r\n\r\n",
    "repeated cookies": f"GET / HTTP/1.1\r\n{HOST}Cookie: a=1\r\nCookie: b=2\r\n\r\n",
    "white space": f"GET / HTTP/1.1\r\n{HOST}X-A:\t 1 2 \t\r\nX-B:   \r\nX-C:\r\n\r\n",
    "colons in values": f"GET / HTTP/1.1\r\n{HOST}X-A: b: c\r\n\r\n",
    "underscores in names": f"GET / HTTP/1.1\r\n{HOST}X_A: 1\r\nX_A: 2\r\nX-A: 3\r\n\r\n",
    "Latin-1 in values": f"GET / HTTP/1.1\r\n{HOST}X-A: \xe9\xa0\xe9\r\n\r\n",
    "UTF-8 in values": f"GET / HTTP/1.1\r\n{HOST}X-A: \xc3\xa9\r\n\r\n",
    "odd names": f"GET / HTTP/1.1\r\n{HOST}!#$%&'*+.^`|~9: 1\r\n\r\n",
    "connection headers": f"GET / HTTP/1.1\r\n{HOST}Connection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n\r\n",
    "HTTP/2, with a body": f"POST / HTTP/1.1\r\n{HOST}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    "HTTP2-Settings: AAMAAABk\r\nContent-Length: 3\r\n\r\nabc",
    "another protocol, asked for in passing": f"GET / HTTP/1.1\r\n{HOST}Upgrade: h2c\r\n\r\n",
}
REFUSED = {
    "no host": ("GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (f"GET / HTTP/1.1\r\n{HOST}{HOST}\r\n", 400),
    "two lengths": (f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "length and chunks": (
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a length that is not digits": (f"POST / HTTP/1.1\r\n{HOST}Content-Length: +3\r\n\r\nabc", 400),
    "another transfer coding": (f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "chunks in HTTP/1.0": ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a folded header": (f"GET / HTTP/1.1\r\n{HOST}X: a\r\n b\r\n\r\n", 400),
    "bare line feeds": ("GET / HTTP/1.1\nHost: h\n\n", 400),
    "a space before the colon": (f"GET / HTTP/1.1\r\n{HOST}X : a\r\n\r\n", 400),
    "a control character": (f"GET / HTTP/1.1\r\n{HOST}X: \x01\r\n\r\n", 400),
    "two spaces": (f"GET  / HTTP/1.1\r\n{HOST}\r\n", 400),
    "an unknown method": (f"BREW / HTTP/1.1\r\n{HOST}\r\n", 501),
    "a proxy": (f"CONNECT a:1 HTTP/1.1\r\n{HOST}\r\n", 501),
    "HTTP/0.9": ("GET /\r\n\r\n", 400),
}


class Recorder:
    """An application that keeps the environs and the bodies it is called with."""

    def __init__(self) -> None:
        self.environs: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.environs.append(environ)
        if environ["wsgi.input_terminated"]:
            self.bodies.append(environ["wsgi.input"].read())
        start_response("200 OK", [("Content-Length", "0"), ("Connection", "close")])
        return []


class Both:
    """The same application under both handlers."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.ours = PlainServer(self.recorder)
        self.theirs = PlainServer(self.recorder, gevent.pywsgi.WSGIHandler)

    def environs(self, request: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What pywsgi makes of a request, and what we do; also compares the bodies."""
        self.recorder.environs.clear()
        self.recorder.bodies.clear()
        for server in (self.theirs, self.ours):
            server.exchange(request.encode("latin-1"))
        theirs, ours = self.recorder.environs
        assert len(set(self.recorder.bodies)) <= 1
        return theirs, ours

    def stop(self) -> None:
        self.ours.stop()
        self.theirs.stop()


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    servers = Both()
    yield servers
    servers.stop()


def without(environ: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in environ.items() if key not in {*NOT_COMPARED, *keys}}


@pytest.mark.parametrize("request_text", SAME.values(), ids=SAME)
def test_the_same_environ(both: Both, request_text: str) -> None:
    theirs, ours = both.environs(request_text)
    assert type(ours) is type(theirs) is dict
    assert set(ours) - set(theirs) == ADDED
    assert without(ours, *ADDED) == without(theirs)


def test_the_socket(both: Both) -> None:
    _, ours = both.environs(SAME["the simplest"])
    # closed by now, but it was the connection's
    assert ours["engineio.socket"].fileno() == -1
    assert type(ours["REMOTE_PORT"]) is str


def test_a_letter_of_utf8_at_the_end_of_a_header(both: Both) -> None:
    theirs, ours = both.environs(f"GET / HTTP/1.1\r\n{HOST}X-A: voil\xc3\xa0 \t\r\n\r\n")
    assert theirs["HTTP_X_A"] == "voil\xc3"
    assert ours["HTTP_X_A"].encode("latin-1").decode() == "voil\xe0"


def test_an_absolute_target(both: Both) -> None:
    theirs, ours = both.environs(f"GET http://other:1/a%20b?c HTTP/1.1\r\n{HOST}\r\n")
    assert (theirs["PATH_INFO"], theirs["HTTP_HOST"]) == ("http://other:1/a b", "host:80")
    assert (ours["PATH_INFO"], ours["HTTP_HOST"]) == ("/a b", "other:1")
    assert without(ours, *ADDED, "PATH_INFO", "HTTP_HOST") == without(theirs, "PATH_INFO", "HTTP_HOST")


@pytest.mark.parametrize("header", ["Connection: Upgrade\r\n", "Connection: upgrade\r\nUpgrade: h2c\r\n"])
def test_an_upgrade_that_is_not_ours(both: Both, header: str) -> None:
    theirs, ours = both.environs(f"GET / HTTP/1.1\r\n{HOST}{header}\r\n")
    assert (theirs["wsgi.input_terminated"], ours["wsgi.input_terminated"]) == (False, True)
    assert ours["wsgi.input"].read() == b""
    assert without(ours, *ADDED, "wsgi.input_terminated") == without(theirs, "wsgi.input_terminated")


def test_an_empty_line_is_skipped(both: Both) -> None:
    assert both.theirs.exchange(b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    for empty in (b"\r\n", b"\r\n\r\n"):
        assert both.ours.exchange(empty + b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("request_text", "status"), REFUSED.values(), ids=REFUSED)
def test_what_pywsgi_takes_and_we_refuse(both: Both, request_text: str, status: int) -> None:
    both.recorder.environs.clear()
    answer = both.ours.exchange(request_text.encode("latin-1"))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1 %d" % status) == 1
    assert both.recorder.environs == []
