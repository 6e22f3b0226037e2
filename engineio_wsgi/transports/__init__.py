"""The transports, one file each, and their names."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from engineio_wsgi.transports.base import Transport
from engineio_wsgi.transports.flashsocket import FlashSocketTransport
from engineio_wsgi.transports.polling import PollingTransport
from engineio_wsgi.transports.websocket import WebSocketTransport
from engineio_wsgi.transports.webtransport import WebTransportTransport

__all__ = ["Transport", "transports"]

#: transport classes by the name in the ``transport`` query parameter
transports: Mapping[str, type[Transport]] = MappingProxyType({
    transport.name: transport for transport in (PollingTransport, WebSocketTransport, WebTransportTransport, FlashSocketTransport)
})
