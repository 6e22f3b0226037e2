"""Options of other libraries: each is refused by a line that names the right option, or says what there is instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engineio_wsgi import ConfigurationError, Server
from engineio_wsgi.options.aliases import ALIASES
from engineio_wsgi.options.environment import from_environ
from engineio_wsgi.options.options import option_table
from engineio_wsgi.options.values import Cors

OPTIONS = {name for name, _, _ in option_table()}
#: what people who come from there give
FLASK_SOCKETIO = {
    "cors_allowed_origins": "did you mean cors?",
    "message_queue": "did you mean cluster? (the URL of a Redis, or 'local' on one machine; see the manual's page Several "
                     "workers)",
    "client_manager": "did you mean cluster?",
    "channel": "did you mean cluster? (the group in the URL of a Redis: 'redis://HOST/?group=NAME')",
    "async_mode": "this server always runs on gevent; leave it out",
    "async_handlers": "this server always runs on gevent; leave it out",
    "logger": "the logger is logging.getLogger('engine'), or set DEBUG=engine*; see the manual's page Troubleshooting",
    "engineio_logger": "the logger is logging.getLogger('engine')",
    "log_output": "the logger is logging.getLogger('engine')",
    "manage_session": "handlers read the handshake's flask.session, and cannot change it; see the manual on Flask",
    "always_connect": "it is Socket.IO's, and this is the transport below it",
    "namespaces": "it is Socket.IO's",
    "serializer": "it is Socket.IO's",
    "json": "messages are str or bytes: call json.dumps()",
    "monitor_clients": "heartbeats are always watched; leave it out",
    "resource": "did you mean path?",
    "cors_credentials": "did you mean cors? (Cors(origins=…, credentials=True))",
    "compression_threshold": "did you mean http_compression? (HttpCompression(threshold=…))",
    "websocket_compression": "did you mean per_message_deflate?",
    "max_decode_packets": "payloads are bounded by max_http_buffer_size, in bytes",
    "host": "it is for listen((host, port), …)",
    "port": "it is for listen((host, port), …)",
    "debug": "the logger is logging.getLogger('engine')",
    "workers": "start several with engineio-wsgi serve --workers NUMBER, or with gunicorn; see the manual's page Several workers",
}
REFERENCE = {
    "pingInterval": "did you mean ping_interval?", "pingTimeout": "did you mean ping_timeout?",
    "upgradeTimeout": "did you mean upgrade_timeout?", "maxHttpBufferSize": "did you mean max_http_buffer_size?",
    "allowRequest": "did you mean allow_request?", "allowUpgrades": "did you mean allow_upgrades?",
    "perMessageDeflate": "did you mean per_message_deflate?", "httpCompression": "did you mean http_compression?",
    "allowEIO3": "did you mean allow_eio3?", "initialPacket": "did you mean initial_packet?",
    "addTrailingSlash": "did you mean add_trailing_slash?", "destroyUpgrade": "did you mean destroy_upgrade?",
    "destroyUpgradeTimeout": "did you mean destroy_upgrade_timeout?",
    "wsEngine": "gevent carries the WebSockets; leave it out", "serveClient": "it is Socket.IO's",
    "origins": "did you mean cors?", "adapter": "did you mean cluster?",
}
OTHERS = {
    "channel_layers": "did you mean cluster?", "redis_url": "did you mean cluster?", "allowed_origins": "did you mean cors?",
    "max_size": "did you mean max_http_buffer_size?", "max_queue": "did you mean max_inbox?",
    "ping_intervall": "did you mean ping_interval?",
}


def said(call: Callable[..., object], *args: Any, **named: Any) -> str:
    """What the refusal of a call says."""
    with pytest.raises(ConfigurationError) as caught:
        call(*args, **named)
    return str(caught.value)


@pytest.mark.parametrize(("name", "text"), {**FLASK_SOCKETIO, **REFERENCE, **OTHERS}.items())
def test_an_option_of_another_library(name: str, text: str) -> None:
    assert said(Server, **{name: 5}).startswith(f"{name} is not an option; {text}")


def test_a_name_without_any_likeness_lists_the_options() -> None:
    assert said(Server, qqq=1).startswith("qqq is not an option; there are path, add_trailing_slash, ")


def test_an_environment_variable_of_another_library() -> None:
    assert said(from_environ, {"ENGINEIO_CORS_ALLOWED_ORIGINS": "*"}) == (
        "ENGINEIO_CORS_ALLOWED_ORIGINS is not an option that the environment can set; did you mean ENGINEIO_CORS?")
    assert said(from_environ, {"ENGINEIO_ASYNC_MODE": "gevent"}).endswith("; this server always runs on gevent; leave it out")


@pytest.mark.parametrize(("part", "meant"), [
    ("origin", "origins"), ("allowedHeaders", "headers"), ("exposedHeaders", "expose"), ("maxAge", "max_age"),
])
def test_a_part_of_the_reference_servers_cors(part: str, meant: str) -> None:
    assert said(Server, cors={part: "x"}) == f"{part} is not a part of cors; did you mean {meant}?"


def test_every_alias_names_what_there_is() -> None:
    parts = set(Cors.__dataclass_fields__)
    assert {alias.option for alias in ALIASES.values()} - OPTIONS - parts == {""}
    assert all(alias.option or alias.text for alias in ALIASES.values())
    assert not {name.replace("_", "") for name in OPTIONS} & set(ALIASES)
