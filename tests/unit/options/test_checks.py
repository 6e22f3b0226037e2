"""The checks of the options: the values that each accepts, what becomes of them, and the text of the refusals."""

from __future__ import annotations

import dataclasses
import re

import pytest

from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.options.options import Options
from engineio_wsgi.options.values import Cookie, Cors, Deflate, HttpCompression


def refusal(**given: object) -> str:
    """What is said about options that cannot be."""
    with pytest.raises(ConfigurationError) as caught:
        Options.create(**given)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


def ask(request: object) -> bool:
    return True


BECOMES = [
    ("path", "engine.io", "/engine.io"),
    ("path", "//a/b//", "/a/b"),
    ("ping_interval", 5, 5.0),
    ("ping_timeout", 0.001, 0.001),
    ("upgrade_timeout", 1_000_000, 1_000_000.0),
    ("max_inbox", 1, 1),
    ("transports", ["websocket"], ("websocket",)),
    ("transports", ("polling", "flashsocket", "polling"), ("polling", "flashsocket")),
    ("cookie", True, Cookie()),
    ("cookie", False, None),
    ("cookie", "sid", Cookie(name="sid")),
    ("cookie", {"name": "sid", "secure": True, "max_age": 60}, Cookie(name="sid", secure=True, max_age=60)),
    ("cookie", Cookie(samesite=None), Cookie(samesite=None)),
    ("per_message_deflate", True, Deflate()),
    ("per_message_deflate", {"level": 9}, Deflate(level=9)),
    ("per_message_deflate", None, None),
    ("http_compression", False, None),
    ("http_compression", HttpCompression(level=1), HttpCompression(level=1)),
    ("cors", "*", Cors(origins="*")),
    ("cors", "https://a.example:8443", Cors(origins="https://a.example:8443")),
    ("cors", "https://a.example/", Cors(origins="https://a.example/")),
    ("cors", "null", Cors(origins="null")),
    ("cors", "capacitor://localhost", Cors(origins="capacitor://localhost")),
    ("cors", "file://", Cors(origins="file://")),
    ("cors", "http://[::1]:3000", Cors(origins="http://[::1]:3000")),
    ("cors", re.compile("https://.*"), Cors(origins=re.compile("https://.*"))),
    ("cors", ask, Cors(origins=ask)),
    ("cors", ["null", re.compile("x"), ask], Cors(origins=("null", re.compile("x"), ask))),
    ("cors", {"origins": "*", "credentials": True}, Cors(origins="*", credentials=True)),
    ("cors", Cors(methods=["GET"], headers=["X-A"], expose=["X-B"]), Cors(methods=("GET",), headers=("X-A",), expose=("X-B",))),
    ("allowed_hosts", "example.org", ("example.org",)),
    ("allowed_hosts", [".a.example", "localhost:80", "[::1]:80"], (".a.example", "localhost:80", "[::1]:80")),
    ("max_sessions_per_address", 1, 1),
    ("max_handshakes_per_address", 60, 60),
    ("drain_rate", 200, 200),
    ("drain_rate", None, None),
    ("max_messages_per_second", 20, 20),
    ("max_bytes_per_second", None, None),
    ("rate_limit_timeout", 5, 5.0),
    ("destroy_upgrade", False, False),
    ("destroy_upgrade_timeout", 1, 1.0),
    ("initial_packet", b"\x00", b"\x00"),
    ("initial_packet", "", ""),
    ("allow_request", ask, ask),
    ("generate_id", ask, ask),
    ("subprotocols", ["v2.chat", "chat"], ("v2.chat", "chat")),
    ("subprotocols", (), ()),
    ("subprotocols", ask, ask),
]


@pytest.mark.parametrize(("name", "value", "becomes"), BECOMES)
def test_accepted(name: str, value: object, becomes: object):
    options = Options.create(**{name: value})
    assert getattr(options, name) == becomes
    assert Options.create(**{name: becomes}) == options


REFUSED = {
    "path": [None, 5, "", "/", "///", "/a?b", "/a#b", "/a%20b", "/a b", "/é", "/a\n", b"/a"],
    "add_trailing_slash": [None, 0, 1, "yes"],
    "transports": [None, (), "polling", 5, [1], [[]], ["web-socket"]],
    "ping_interval": [None, True, "25", 0, -1, 0.0001, 1_000_001, float("nan"), float("inf"), 10**400],
    "ping_timeout": [0, "x"],
    "upgrade_timeout": [0, "x"],
    "destroy_upgrade": [0, "yes", None],
    "destroy_upgrade_timeout": [0, None],
    "max_http_buffer_size": [None, True, 0, -1, 1.5, "1000"],
    "allowed_hosts": ["", [], 5, ["a b"], ["*"], ["https://a.example"], ["a.example:x"], [None]],
    "max_sessions_per_address": [0, True, "5", 1.5],
    "max_handshakes_per_address": [0, -1],
    "drain_rate": [0, -1, 0.5, "5"],
    "max_messages_per_second": [0, 0.5, "5"],
    "max_bytes_per_second": [0, True],
    "rate_limit_timeout": [0, None],
    "max_buffered": [0],
    "max_inbox": [0],
    "allow_upgrades": ["false"],
    "allow_eio3": [1],
    "jsonp": [1],
    "policy_file": [1],
    "handover": [1],
    "allow_request": [True, "x"],
    "generate_id": ["x"],
    "subprotocols": ["chat", ["a", "a"], ["a b"], [""], ["a,b"], [5], [[]], 5, True, {"a"}],
    "cors": [True, 5, "", "example.org", "https://a.example/app", "https://*.a.example", "https://bücher.example", " *",
             "https://a.example ", re.compile(b"x"), ["*", 5], iter(["*"]), b"*"],
    "cookie": [5, "", "a b", "a;b", "a=b", "ü", {"name": 5}],
    "per_message_deflate": [5, "yes", HttpCompression(), {"level": 10}],
    "http_compression": [5, Deflate(), {"threshold": -1}],
    "initial_packet": [5, {}],
    "cluster": ["elsewhere", "local:", "redis:/x", "http://redis", True, "redis://", "redis://host:port", "redis://host/x", "redis://h/0/1",
                "redis+sentinel://host", "redis+cluster://host/1", "redis://host/?group=a b", "redis://h?relay_websockets=2"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_refused_with_the_name_and_what_was_given(name: str, value: object):
    text = refusal(**{name: value})
    assert text.startswith(f"{name}: expected ")
    assert "; got " in text
    assert "\n" not in text


def test_every_option_is_refused_something():
    assert set(REFUSED) == {declared.name for declared in dataclasses.fields(Options)}


def test_an_unknown_part():
    assert refusal(cookie={"http_only": True}) == "http_only is not a part of cookie; did you mean httponly?"
