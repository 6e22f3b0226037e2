"""Options from text: environment variables, the names that text can set, and the refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi import Server
from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.options.environment import from_environ, parse_option, simple_options
from engineio_wsgi.options.options import Options
from engineio_wsgi.options.values import Cookie, Cors, Deflate

TEXTS = [
    ("PATH", "/live", "path", "/live"),
    ("ADD_TRAILING_SLASH", "no", "add_trailing_slash", False),
    ("TRANSPORTS", "polling, websocket,", "transports", ("polling", "websocket")),
    ("PING_INTERVAL", "2.5", "ping_interval", 2.5),
    ("MAX_BUFFERED", "1_000", "max_buffered", 1000),
    ("ALLOW_EIO3", "TRUE", "allow_eio3", True),
    ("JSONP", "1", "jsonp", True),
    ("CORS", "*", "cors", Cors(origins="*")),
    ("CORS", "https://a.example,https://b.example", "cors", Cors(origins=("https://a.example", "https://b.example"))),
    ("CORS", "", "cors", Cors(origins=())),
    ("COOKIE", "on", "cookie", Cookie()),
    ("COOKIE", "sid", "cookie", Cookie(name="sid")),
    ("COOKIE", "off", "cookie", None),
    ("HTTP_COMPRESSION", "off", "http_compression", None),
    ("PER_MESSAGE_DEFLATE", "yes", "per_message_deflate", Deflate()),
    ("INITIAL_PACKET", "hello", "initial_packet", "hello"),
    ("SUBPROTOCOLS", "v2.chat, chat", "subprotocols", ("v2.chat", "chat")),
]


@pytest.mark.parametrize(("variable", "text", "name", "value"), TEXTS)
def test_from_environ(variable: str, text: str, name: str, value: object):
    given = from_environ({f"ENGINEIO_{variable}": text, "OTHER": "x"})
    assert given == {name: value}
    assert getattr(Options.create(**given), name) == value


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("PING_INTERVAL", "abc", "ping_interval: expected a number of seconds; got 'abc'"),
        ("PING_INTERVAL", "", "ping_interval: expected a number of seconds; got ''"),
        ("PING_INTERVAL", "nan", "ping_interval: expected a number of seconds from 0.001 to 1000000; got nan"),
        ("MAX_INBOX", "1.5", "max_inbox: expected a whole number of bytes; got '1.5'"),
        ("JSONP", "maybe", "jsonp: expected true or false; got 'maybe'"),
        ("TRANSPORTS", "", "transports: expected a list of polling, websocket, webtransport, flashsocket; got ()"),
        ("PING_INTERVALL", "5",
         "ENGINEIO_PING_INTERVALL is not an option that the environment can set; did you mean ENGINEIO_PING_INTERVAL?"),
    ],
)
def test_from_environ_refuses(variable: str, text: str, says: str):
    with pytest.raises(ConfigurationError) as caught:
        from_environ({f"ENGINEIO_{variable}": text})
    assert str(caught.value) == says


@pytest.mark.parametrize("name", ["allow_request", "generate_id"])
def test_the_environment_cannot_set_what_text_cannot_say(name: str):
    assert name not in simple_options()
    with pytest.raises(ConfigurationError, match=f"^ENGINEIO_{name.upper()} is not an option that the environment can set"):
        from_environ({f"ENGINEIO_{name.upper()}": "x"})


@given(st.sampled_from(sorted(simple_options())), st.text())
def test_any_text_is_a_value_or_refused(name: str, text: str):
    try:
        value = parse_option(name, text)
    except ConfigurationError as error:
        assert str(error).startswith(f"{name}: ")
    else:
        assert getattr(Options.create(**{name: value}), name) == value


def test_what_is_meant_for_the_package_is_no_option():
    assert from_environ({"ENGINEIO_PURE": "1", "ENGINEIO_PING_INTERVAL": "4"}) == {"ping_interval": 4.0}


def test_a_subclass_of_server_can_be_made_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    class Mine(Server):
        pass

    monkeypatch.setenv("ENGINEIO_PING_INTERVAL", "4")
    server = Mine.from_environ(ping_interval=9, ping_timeout=8)
    assert type(server) is Mine
    assert (server.options.ping_interval, server.options.ping_timeout) == (4.0, 8.0)
