"""The insides of gunicorn's parser that this package relies on."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import errors
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from engineio_wsgi.vendors.gunicorn_parser import STATUSES, ParseException, parse

HEAD = b"GET /there?a=1 HTTP/1.1\r\nHost: example.org\r\n\r\n"


def config(**settings: Any) -> Config:
    """gunicorn's settings."""
    made = Config()
    for name, value in settings.items():
        made.set(name, value)
    return made


def test_the_parser_takes_what_it_is_given() -> None:
    assert list(inspect.signature(Request.__init__).parameters)[:4] == ["self", "cfg", "unreader", "peer_addr"]
    assert "req_number" in inspect.signature(Request.__init__).parameters
    assert list(inspect.signature(Request.parse).parameters) == ["self", "unreader"]
    assert list(inspect.signature(IterUnreader.__init__).parameters) == ["self", "iterable"]


def test_a_parsed_head_has_the_attributes_that_are_read() -> None:
    request = parse(config(), HEAD, ("192.0.2.1", 5021), 2)
    assert (request.method, request.uri, request.version, request.scheme) == ("GET", "/there?a=1", (1, 1), "http")
    assert request.headers == [("HOST", "example.org")]
    assert not request.proxy_protocol_info


def test_a_proxy_header_is_read_before_the_first_request_only() -> None:
    proxied = b"PROXY TCP4 203.0.113.9 192.0.2.1 5021 80\r\n" + HEAD
    cfg = config(proxy_protocol=True, proxy_allow_ips="*")
    said = parse(cfg, proxied, ("192.0.2.1", 5021), 1).proxy_protocol_info
    assert (said["client_addr"], said["client_port"], said["proxy_protocol"]) == ("203.0.113.9", 5021, "TCP4")
    with pytest.raises(ParseException):
        parse(cfg, proxied, ("192.0.2.1", 5021), 2)


def test_a_field_size_of_0_is_no_limit() -> None:
    head = HEAD[:-2] + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n"
    assert len(dict(parse(config(limit_request_field_size=0), head, "", 2).headers)["X-LONG"]) == 20_000
    with pytest.raises(errors.LimitRequestHeaders):
        parse(config(), head, "", 2)


@pytest.mark.parametrize("name", [name for name in STATUSES if hasattr(errors, name)])
def test_the_exceptions_with_a_status_of_their_own(name: str) -> None:
    assert issubclass(getattr(errors, name), ParseException)


def test_most_of_these_exceptions_are_known() -> None:
    # the newest are not in the oldest gunicorn that is supported
    assert {"LimitRequestLine", "LimitRequestHeaders", "ForbiddenProxyRequest"} <= {*dir(errors)}
