"""What is done about refused requests beside the response: they are counted, logged, explained, and told to listeners."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.fakehooks import ADDRESS, ENVIRON, fake_hooks, made_with_registries
from support.fakeloop import FakeLoop
from werkzeug.wrappers import Request

from engineio_wsgi.engine.advice import Advice
from engineio_wsgi.engine.refusals import UNREACHED, Refusals
from engineio_wsgi.errors import ErrorCode, Forbidden, PayloadTooLarge, RequestRefused
from engineio_wsgi.runtime.observer import Observer

#: a request that came to one of several processes
OF_SEVERAL = {**ENVIRON, "wsgi.multiprocess": True}


class Recorder(Observer):
    """Remembers what was refused."""

    def __init__(self) -> None:
        self.codes: list[int] = []

    def on_refused(self, code: int, error: Exception, environ: Any) -> None:
        """A request was refused."""
        self.codes.append(code)


class Made:
    """The refusals of a server, and its registry."""

    def __init__(self, registry: Any, **hooks: Any) -> None:
        self.registry = registry
        self.refusals = Refusals(registry, fake_hooks(**hooks), Advice())
        self.recorder = Recorder()
        registry.observe(self.recorder)


@pytest.fixture
def make() -> Iterator[Callable[..., Made]]:
    """Makes the refusals of a server with some hooks and ``options``."""
    yield from made_with_registries(Made)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[int], list[str]]:
    """Returns what has been logged at a level."""
    caplog.set_level(logging.INFO, "engine")
    return lambda level: [record.getMessage() for record in caplog.records if record.levelno == level]


def unknown(sid: str = "efgh0123456789") -> RequestRefused:
    """The refusal of a request for a session that is not here."""
    return RequestRefused(ErrorCode.SESSION_UNKNOWN, context={"sid": sid})


# -- counted and logged


def test_a_refusal_is_counted_and_logged_without_the_whole_session_id(make: Any, lines: Any) -> None:
    made = make()
    made.refusals.report(unknown(), dict(ENVIRON))
    made.refusals.report(Forbidden("log in first"), dict(ENVIRON))
    assert made.recorder.codes == [1, 4]
    assert lines(logging.INFO) == [f"< {ADDRESS}: refused: 1 Session ID unknown {{'sid': 'efgh01…'}}",
                                   f"< {ADDRESS}: refused: 4 log in first {{}}"]


def test_the_same_refusal_of_an_address_is_logged_once_a_minute(make: Any, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = FakeLoop()
    monkeypatch.setattr("engineio_wsgi.engine.refusals.monotonic", loop.monotonic)
    made = make()
    counts = []
    for seconds, environ in [(0, ENVIRON), (59, ENVIRON), (0, {**ENVIRON, "REMOTE_ADDR": "198.51.100.1"}), (1, ENVIRON)]:
        loop.advance(seconds)
        made.refusals.report(unknown(), dict(environ))
        counts.append(len(lines(logging.INFO)))
    assert counts == [1, 1, 2, 3]
    assert made.recorder.codes == [1] * 4, "all of them are counted"


def test_refusals_of_an_address_for_other_reasons_are_logged_too(make: Any, lines: Any) -> None:
    made = make()
    for name in ("METHOD", "NO_UPGRADE", "METHOD"):
        made.refusals.report(RequestRefused(ErrorCode.BAD_REQUEST, context={"name": name}), dict(ENVIRON))
    assert len(lines(logging.INFO)) == 2


def test_only_an_unknown_session_says_why_its_worker_was_not_reached(make: Any) -> None:
    made, environ = make(), {**ENVIRON, UNREACHED: {"worker": "gone"}}
    other, refusal = Forbidden(), unknown("efgh1")
    made.refusals.report(other, environ)
    made.refusals.report(refusal, environ)
    assert (other.context, refusal.context) == ({}, {"sid": "efgh1", "worker": "gone"})
    assert UNREACHED not in environ


def test_a_body_that_is_too_large_counts_as_a_bad_request(make: Any, lines: Any) -> None:
    made = make()
    for _ in range(2):
        made.refusals.report_too_large(PayloadTooLarge(11, 10), dict(ENVIRON))
    assert made.recorder.codes == [3, 3]
    assert lines(logging.INFO) == ["< 11 bytes were sent or announced, at most 10 are accepted (max_http_buffer_size)"]


# -- told to listeners


def test_listeners_get_the_refusal_with_its_request(make: Any) -> None:
    made, heard = make(), []
    made.registry.events.on("connection_error", heard.append)
    refusal = Forbidden("log in first")
    made.refusals.report(refusal, dict(ENVIRON))
    assert heard == [refusal]
    assert isinstance(refusal.request, Request)
    assert refusal.request.path == "/engine.io/"


def test_no_request_is_made_if_nobody_listens(make: Any) -> None:
    made_requests: list[object] = []
    refusal = Forbidden()
    make(request_of=made_requests.append).refusals.report(refusal, dict(ENVIRON))
    assert (made_requests, refusal.request) == ([], None)


@pytest.mark.complains
def test_a_listener_that_fails_is_logged_and_the_request_goes_on(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    made = make()
    made.registry.events.on("connection_error", lambda refusal: 1 / 0)
    made.refusals.report(Forbidden(), dict(ENVIRON))
    assert "a listener (connection_error) failed" in caplog.text


# -- explained to the operator


@pytest.mark.parametrize(("how", "environ", "expected"), [
    ({}, OF_SEVERAL, 1),
    ({}, ENVIRON, 0),
    ({"in_cluster": True}, OF_SEVERAL, 0),
    ({"options": {"generate_id": lambda request: "1"}}, OF_SEVERAL, 0),
], ids=["one of several processes", "the only process", "a cluster", "ids of the application"])
def test_a_session_of_another_worker_is_explained(make: Any, lines: Any, how: Any, environ: Any, expected: int) -> None:
    make(**how).refusals.report(unknown(), dict(environ))
    told = lines(logging.WARNING)
    assert [line.startswith("a request for another worker's session was answered") for line in told] == [True] * expected


def test_a_server_that_cannot_upgrade_is_explained(make: Any, lines: Any) -> None:
    refusal = RequestRefused(ErrorCode.BAD_REQUEST, context={"missing": "a server that can upgrade connections"})
    make().refusals.report(refusal, {**ENVIRON, "SERVER_SOFTWARE": "plain/1"})
    (told,) = lines(logging.WARNING)
    assert told.startswith("connections cannot be taken over from this server (plain/1)")


def test_a_refusal_that_an_option_cures_is_explained(make: Any, lines: Any) -> None:
    refusal = RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "JSONP_DISABLED", "option": "jsonp"})
    make().refusals.report(refusal, dict(ENVIRON))
    (told,) = lines(logging.WARNING)
    assert "set the option jsonp=True" in told
