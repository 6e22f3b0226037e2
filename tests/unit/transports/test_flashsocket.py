"""A WebSocket under the name that pages with the Flash fallback ask for."""

from __future__ import annotations

import xml.etree.ElementTree as xml

from engineio_wsgi.transports import transports
from engineio_wsgi.transports.flashsocket import POLICY_FILE, POLICY_REQUEST, FlashSocketTransport
from engineio_wsgi.transports.websocket import WebSocketTransport


def test_it_is_a_websocket_with_a_name_of_its_own() -> None:
    assert issubclass(FlashSocketTransport, WebSocketTransport)
    assert transports["flashsocket"] is FlashSocketTransport
    assert (FlashSocketTransport.name, FlashSocketTransport.handles_upgrades) == ("flashsocket", True)


def test_the_policy_request_and_the_policy_file_end_with_a_zero_byte() -> None:
    assert POLICY_REQUEST == b"<policy-file-request/>\0"
    assert POLICY_FILE.endswith(b"\0")


def test_the_policy_file_allows_every_domain() -> None:
    rule = xml.fromstring(POLICY_FILE.rstrip(b"\0")).find("allow-access-from")
    assert rule is not None
    assert (rule.get("domain"), rule.get("to-ports")) == ("*", "*")
