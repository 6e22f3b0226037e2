"""The declaration of the options: defaults, names, and the values that hold for servers that are not given any."""

from __future__ import annotations

import dataclasses

import pytest

from engineio_wsgi import Server
from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.options.options import Options, option_defaults, option_table
from engineio_wsgi.options.values import Cors, HttpCompression

NAMES = [declared.name for declared in dataclasses.fields(Options)]
DEFAULTS = {
    "path": "/engine.io",
    "add_trailing_slash": True,
    "transports": ("polling", "websocket"),
    "ping_interval": 25.0,
    "ping_timeout": 20.0,
    "upgrade_timeout": 10.0,
    "destroy_upgrade": True,
    "destroy_upgrade_timeout": 10.0,
    "max_http_buffer_size": 1_000_000,
    "allow_upgrades": True,
    "allow_request": None,
    "allow_eio3": False,
    "jsonp": False,
    "cors": None,
    "allowed_hosts": None,
    "cookie": None,
    "initial_packet": None,
    "http_compression": HttpCompression(threshold=1024),
    "per_message_deflate": None,
    "subprotocols": None,
    "max_buffered": 2_000_000,
    "max_inbox": 1_000_000,
    "max_sessions_per_address": None,
    "max_handshakes_per_address": None,
    "drain_rate": 50,
    "max_messages_per_second": None,
    "max_bytes_per_second": None,
    "rate_limit_timeout": 10.0,
    "generate_id": None,
    "policy_file": False,
    "cluster": None,
    "handover": False,
}


def test_defaults():
    options = Options()
    assert {name: getattr(options, name) for name in NAMES} == DEFAULTS


def test_options_are_frozen_copies_of_what_was_given():
    origins = ["https://a.example"]
    options = Options(cors=origins)
    origins.append("https://b.example")
    assert options.cors == Cors(origins=("https://a.example",))
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.path = "/other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("ping_intervall", "did you mean ping_interval?"),
        ("pingInterval", "did you mean ping_interval?"),
        ("transport", "did you mean transports?"),
        ("zzz", f"there are {', '.join(NAMES)}"),
    ],
)
def test_an_unknown_option(given: str, hint: str):
    with pytest.raises(ConfigurationError) as caught:
        Options.create(**{given: 1})
    assert str(caught.value) == f"{given} is not an option; {hint}"


@pytest.mark.parametrize(("slash", "resource"), [(True, "/live/"), (False, "/live")])
def test_resource(slash: bool, resource: str):
    assert Options(path="live/", add_trailing_slash=slash).resource == resource


def test_option_defaults_hold_for_servers_that_are_not_given_the_option():
    with option_defaults({"ping_interval": 3.0, "path": "/from-outside"}):
        server = Server(path="/own")
        assert (server.options.ping_interval, server.options.path) == (3.0, "/own")
    assert Server().options.ping_interval == 25.0


def test_option_defaults_end_with_an_exception():
    with pytest.raises(RuntimeError), option_defaults({"ping_interval": 3.0}):
        raise RuntimeError
    assert Server().options.ping_interval == 25.0


def test_the_table_has_every_option_once():
    table = option_table()
    assert [name for name, _, _ in table] == NAMES
    assert all(default and meaning for _, default, meaning in table)
