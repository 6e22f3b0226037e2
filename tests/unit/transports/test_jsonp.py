"""JSONP polling over environs: responses that are scripts, and bodies that are forms."""

from __future__ import annotations

import io
from typing import Any

import pytest
from support.fakesink import FakeSink

from engineio_wsgi.errors import RequestRefused
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.transports.jsonp import JSONPTransport


def jsonp(protocol: int = 4) -> tuple[JSONPTransport, FakeSink]:
    """A transport and the sink that it reports to."""
    transport, sink = JSONPTransport(protocol, 100), FakeSink()
    sink.serve(transport)
    return transport, sink


def get(query: str) -> dict[str, Any]:
    """A GET."""
    return {"REQUEST_METHOD": "GET", "QUERY_STRING": query}


@pytest.mark.parametrize(("protocol", "body"), [(4, b'___eio[7]("4a");'), (3, b'___eio[7]("2:4a");')])
def test_a_response_calls_the_function_of_the_request(protocol: int, body: bytes) -> None:
    transport, sink = jsonp(protocol)
    sink.send("a")
    answer = transport.poll(get("EIO=4&j=7"))
    assert (answer.body, answer.headers[0][1], answer.compress) == (body, "text/javascript; charset=UTF-8", True)


@pytest.mark.parametrize("query", ["", "j=", "j=a", "j=1);alert(1", "j=-1"])
def test_an_index_that_is_no_number_is_refused(query: str) -> None:
    transport, sink = jsonp()
    sink.send("a")
    with pytest.raises(RequestRefused) as refusal:
        transport.poll(get(query))
    assert refusal.value.context["name"] == "JSONP_INDEX"
    assert not sink.closed


def test_the_packets_of_a_form() -> None:
    transport, sink = jsonp()
    body = b"d=4a%5Cnb%1E3"
    answer = transport.post({"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)})
    assert answer.body == b"ok"
    assert sink.log == ["heard", ("enqueue", "a\nb"), Packet(PacketType.PONG), "submit"]


def test_a_form_without_packets_is_refused() -> None:
    transport, sink = jsonp()
    with pytest.raises(RequestRefused):
        transport.post({"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "3", "wsgi.input": io.BytesIO(b"x=1")})
    assert (sink.closed, sink.close_reason) == (True, "parse error")
