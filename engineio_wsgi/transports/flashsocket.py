"""WebSocket under the name that pages with a Flash fallback use, and the policy file that Flash requests first."""

from __future__ import annotations

from engineio_wsgi.transports.websocket import WebSocketTransport

__all__ = ["POLICY_FILE", "POLICY_REQUEST", "FlashSocketTransport"]

#: what a Flash player sends, on a separate connection, before it opens a socket
POLICY_REQUEST = b"<policy-file-request/>\0"
POLICY_FILE = (
    b'<?xml version="1.0"?>\n'
    b'<!DOCTYPE cross-domain-policy SYSTEM "http://www.macromedia.com/xml/dtds/cross-domain-policy.dtd">\n'
    b'<cross-domain-policy><allow-access-from domain="*" to-ports="*"/></cross-domain-policy>\n\0'
)


class FlashSocketTransport(WebSocketTransport):
    """The WebSocket transport under the name ``flashsocket``."""

    __slots__ = ()

    name = "flashsocket"
