"""The inspector as a WSGI application: who is let in, what the pages' headers say, and what the page is told of the sessions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client as HttpClient
from werkzeug.wrappers import Request, Response

from engineio_wsgi import Bundle, Forbidden, Server
from engineio_wsgi.errors import ConfigurationError, UsageError
from engineio_wsgi.inspector import Inspector, Password, recorder, watches, worker_view
from engineio_wsgi.inspector.pages import FILES
from engineio_wsgi.inspector.worker_view import CLOSED_BY_INSPECTOR
from engineio_wsgi.metrics import observe
from engineio_wsgi.testing import Client, Refused

LIVE = "/inspector/live/"
#: sessions that are shown in these tests
ROWS = 4


class Site:
    """An application with a server and its inspector."""

    def __init__(self, allow: Any = lambda request: True, payloads: bool = False, **options: Any) -> None:
        self.server = Server(**options)
        self.inspector = Inspector(self.server, allow=allow, payloads=payloads)
        self.app = self.inspector.mount(self.server.wrap(Response("a page")))
        self.http = HttpClient(self.app)
        self.server.on("connection", lambda socket: socket.on("message", socket.send))

        self._viewers: list[Viewer] = []

    def viewer(self, **options: Any) -> Viewer:
        """Open a page."""
        self._viewers.append(Viewer(Client(self.app, LIVE, **options)))
        return self._viewers[-1]

    def stop(self) -> None:
        """Close the pages and the server."""
        for viewer in self._viewers:
            viewer.client.close()
        self.server.close(timeout=0)


class Viewer:
    """What the page does, without the page."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.hello = json.loads(client.receive())

    def ask(self, kind: str, **fields: Any) -> Any:
        self.client.send(json.dumps({"type": kind, **fields}))
        return json.loads(self.client.receive())

    def look(self, **wishes: Any) -> Any:
        """What the only worker tells."""
        answer = self.ask("look", **wishes)
        assert (answer["type"], answer["silent"], len(answer["workers"])) == ("look", [], 1)
        return answer["workers"][0]

    def sessions(self, **wishes: Any) -> list[Any]:
        return list(self.look(**wishes)["sessions"])


@pytest.fixture
def make_site() -> Iterator[Callable[..., Site]]:
    """A factory of sites."""
    made: list[Site] = []

    def make(*args: Any, **options: Any) -> Site:
        made.append(Site(*args, **options))
        return made[-1]

    yield make
    for site in made:
        site.stop()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """A site whose inspector lets everybody in."""
    return make_site()


@pytest.fixture
def viewer(site: Site) -> Viewer:
    """A page of it."""
    return site.viewer()


# -- who is let in


def test_there_is_none_without_allow() -> None:
    with pytest.raises(TypeError, match="allow"):
        Inspector(Server())  # type: ignore[call-arg]


async def never_awaited(request: Request) -> bool:
    return True


@pytest.mark.parametrize("allow", [None, True, "everybody", never_awaited])
def test_allow_has_to_decide(allow: Any) -> None:
    with pytest.raises(ConfigurationError, match="allow"):
        Inspector(Server(), allow=allow)


def test_a_server_has_one_inspector() -> None:
    server = Server()
    Inspector(server, allow=lambda request: True)
    with pytest.raises(UsageError, match="once"):
        Inspector(server, allow=lambda request: True)


def forbid(request: Request) -> bool:
    raise Forbidden("only for the staff")


REFUSALS = [(lambda request: False, "Forbidden"), (forbid, "only for the staff"), (lambda request: None, "Forbidden")]


@pytest.mark.parametrize(("allow", "why"), REFUSALS)
@pytest.mark.parametrize("path", [*FILES, "", "/nothing"])
def test_every_page_is_refused_in_one_line(allow: Any, why: str, path: str) -> None:
    response = Site(allow).http.get(f"/inspector{path}")
    assert (response.status_code, response.text) == (403, f"the inspector is not for you: {why}\n")


@pytest.mark.parametrize("allow", [allow for allow, _ in REFUSALS])
@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_a_session_of_the_page_is_refused(allow: Any, transport: str) -> None:
    with pytest.raises(Refused) as refused:
        Client(Site(allow).app, LIVE, transport=transport)
    assert refused.value.code == 4


@pytest.mark.complains
def test_an_allow_that_fails_lets_nobody_in() -> None:
    assert Site(lambda request: 1 / 0).http.get("/inspector/").status_code == 403


def test_allow_sees_the_request(make_site: Callable[..., Site]) -> None:
    site = make_site(lambda request: request.cookies.get("role") == "admin")
    site.http.set_cookie("role", "admin")
    assert site.http.get("/inspector/").status_code == 200
    assert site.viewer(cookies={"role": "admin"}).look()["sessions"] == []
    with pytest.raises(Refused):
        Client(site.app, LIVE, cookies={"role": "guest"})


def test_a_password_is_asked_for() -> None:
    site = Site(Password("sesam"))
    refused = site.http.get("/inspector/")
    assert (refused.status_code, refused.text) == (401, "the inspector asks for a password\n")
    assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert site.http.get("/inspector/", auth=("anybody", "sesam")).status_code == 200
    with pytest.raises(Refused):
        Client(site.app, LIVE)


def test_pages_of_other_origins_get_no_session() -> None:
    site = Site(cors="*")
    with pytest.raises(Refused) as refused:
        Client(site.app, LIVE, headers={"Host": "example.org", "Origin": "https://evil.example"})
    assert refused.value.code == 4


# -- the pages


@pytest.mark.parametrize("mounted", ["inside", "outside"])
def test_another_dispatcher_does(site: Site, mounted: str) -> None:
    dispatched = DispatcherMiddleware(Response("a page"), {"/inspector": site.inspector})
    app = site.server.wrap(dispatched if mounted == "inside" else Response("a page"))
    app = app if mounted == "inside" else DispatcherMiddleware(app, {"/inspector": site.inspector})
    assert HttpClient(app).get("/inspector/").status_code == 200
    assert HttpClient(app).get("/else").text == "a page"
    with Client(app), Client(app, LIVE) as page:
        page.receive()
        page.send('{"type": "look"}')
        assert json.loads(page.receive())["workers"][0]["found"] == 1


def test_the_engine_keeps_its_short_ways_behind_an_inspector(site: Site) -> None:
    assert site.server._worker.is_outermost(site.app)
    assert site.server._worker._is_direct(site.app)
    assert not site.server._worker.is_outermost(DispatcherMiddleware(site.app))


@pytest.mark.parametrize("path", ["", "/", "inspector", "/a/", "//a", "/a b", "/a?b", "/<b>"])
def test_what_is_no_path(site: Site, path: str) -> None:
    with pytest.raises(ConfigurationError, match="expected one such as"):
        site.inspector.mount(Response(), path)


def test_only_what_is_below_the_path_is_the_inspectors(site: Site) -> None:
    app = HttpClient(site.inspector.mount(Response("a page"), "/ops/live"))
    assert app.get("/ops/live/").text.startswith("<!doctype html>")
    assert app.get("/ops/live").headers["Location"] == "/ops/live/"
    assert [app.get(path).text for path in ("/ops/lively", "/ops", "/inspector/")] == ["a page"] * 3


@pytest.mark.parametrize("path", FILES)
def test_a_page_may_not_be_framed_or_run_foreign_scripts(site: Site, path: str) -> None:
    response = site.http.get(f"/inspector{path}")
    assert (response.status_code, response.headers["X-Frame-Options"]) == (200, "DENY")
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    assert "unsafe" not in str(policy)
    assert policy["require-trusted-types-for"] == "'script'"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Referrer-Policy"] == "no-referrer"


def test_the_page_has_no_script_or_style_of_its_own(site: Site) -> None:
    page = site.http.get("/inspector/").text
    assert re.findall(r"<script(?! type=\"module\" src=\"\w+\.js\"></script>)|\sstyle=|\son\w+=|<style|javascript:", page) == []


def test_no_script_makes_html_of_a_text(site: Site) -> None:
    scripts = "".join(site.http.get(f"/inspector{path}").text for path in FILES if path.endswith(".js"))
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function", scripts) == []


def test_without_the_slash_the_page_is_redirected(site: Site) -> None:
    response = site.http.get("/inspector")
    assert (response.status_code, response.headers["Location"]) == (308, "/inspector/")


def test_what_is_no_page(site: Site) -> None:
    assert site.http.get("/inspector/../secret").status_code == 404
    assert site.http.get("/inspector/application.py").status_code == 404
    assert site.http.post("/inspector/").status_code == 405
    assert site.http.head("/inspector/").text == ""
    assert site.http.get("/").text == "a page"


# -- what the page is told


def test_the_greeting(site: Site) -> None:
    assert site.viewer().hello == {"type": "hello", "path": "/engine.io", "payloads": False}


def test_a_session_as_it_is(site: Site, viewer: Viewer) -> None:
    with Client(site.app, transport="websocket", remote_address="10.1.2.3") as client:
        client.socket.data["user"] = "tobi"  # type: ignore[union-attr]
        viewer.look()
        for _ in range(3):
            client.send("hello")
            client.receive()
        row = viewer.sessions()[0]
        assert row.pop("age") >= 0
        assert row.pop("quiet") >= 0
        assert row.pop("handle").endswith(".1")
        assert row == {"id": client.sid[:6] + "…", "number": 1, "state": "open", "transport": "websocket", "protocol": 4,
                       "address": "10.1.2.3", "user": "tobi", "roundTrip": None, "upgradedIn": None, "buffered": 0,
                       "in": 3, "out": 3}


def test_no_answer_has_a_whole_id(site: Site, viewer: Viewer) -> None:
    with Client(site.app) as client, Client(site.app, transport="websocket") as other:
        handle = viewer.sessions()[0]["handle"]
        viewer.client.send(json.dumps({"type": "look", "watched": handle}))
        answer = str(viewer.client.receive())
        assert client.sid[:6] in answer
        assert not any(sid in answer or sid[7:] in answer for sid in (client.sid, other.sid))


def test_the_pages_own_sessions_are_not_among_them(site: Site, viewer: Viewer) -> None:
    assert viewer.look()["found"] == 0


@pytest.mark.parametrize(("data", "user"), [
    ({}, None), ({"user": "tobi"}, "tobi"), ({"username": "ada"}, "ada"), ({"name": "grace"}, "grace"), ({"user": 17}, "17"),
    ({"user": object()}, None), ({"user": None, "name": "ken"}, "ken"), ({"user": "x" * 1000}, "x" * 80),
])
def test_who_it_is(site: Site, viewer: Viewer, data: dict[str, object], user: str | None) -> None:
    with Client(site.app) as client:
        client.socket.data.update(data)  # type: ignore[union-attr]
        assert viewer.sessions()[0]["user"] == user


def test_an_upgrade_and_how_long_it_took(site: Site, viewer: Viewer) -> None:
    with Client(site.app) as client:
        viewer.look()
        client.send("by polling")
        client.receive()
        client.upgrade()
        client.send("by WebSocket")
        client.receive()
        seen = viewer.look()
        row = seen["sessions"][0]
        assert (row["transport"], row["in"], row["out"]) == ("websocket", 2, 2)
        assert (seen["upgrades"]["won"], seen["upgrades"]["failed"]) == (1, 0)
        assert seen["upgrades"]["seconds"] == [pytest.approx(row["upgradedIn"], abs=0.0001)]


def test_a_round_trip(make_site: Callable[..., Site]) -> None:
    site = make_site(ping_interval=0.05)
    viewer = site.viewer()
    with Client(site.app, transport="websocket") as client:
        beats = gevent.event.Event()
        client.socket.on("heartbeat", beats.set)  # type: ignore[union-attr]
        assert beats.wait(60)
        assert viewer.sessions()[0]["roundTrip"] > 0


def test_messages_of_a_bundle_and_a_broadcast_count(site: Site, viewer: Viewer) -> None:
    with Client(site.app, transport="websocket") as client:
        viewer.look()
        client.socket.send(Bundle("a", "b", b"c"))  # type: ignore[union-attr]
        site.server.broadcast("d")
        assert [client.receive() for _ in range(4)] == ["a", "b", b"c", "d"]
        assert viewer.sessions()[0]["out"] == 4


def meters(*clients: Client) -> set[str]:
    """The kinds of counters that sessions have."""
    return {type(client.socket.transport.meter).__name__ for client in clients}  # type: ignore[union-attr]


def test_messages_are_counted_while_somebody_looks(site: Site, viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "PATIENCE", 0.0)
    with Client(site.app) as polling, Client(site.app, transport="websocket") as client:
        assert meters(polling, client) == {"NoneType"}
        viewer.look()
        with Client(site.app, transport="websocket") as later:
            assert meters(polling, client, later) == {"SessionMeter"}
            with gevent.Timeout(60):
                while meters(polling, client, later) != {"NoneType"}:
                    gevent.sleep(0.01)
            assert viewer.sessions()[0]["in"] == 0


def test_beside_metrics_the_totals_go_on(monkeypatch: pytest.MonkeyPatch, make_site: Callable[..., Site]) -> None:
    monkeypatch.setattr(recorder, "PATIENCE", 0.0)
    site, registry = make_site(), CollectorRegistry()
    observe(site.server, registry)
    viewer = site.viewer()
    with Client(site.app, transport="websocket") as client:
        for number in range(1, 4):
            client.send("x")
            client.receive()
            labels = {"path": "/engine.io", "transport": "websocket"}
            assert registry.get_sample_value("engineio_messages_received_total", labels) == number
            kind = "SessionMeter" if meters(client) == {"Meter"} else "Meter"
            if kind == "SessionMeter":
                viewer.look()
            with gevent.Timeout(60):
                while meters(client) != {kind}:
                    gevent.sleep(0.01)


def test_what_waits_for_a_client(site: Site, viewer: Viewer) -> None:
    with Client(site.app) as client:
        client.socket.send("x" * 5000)  # type: ignore[union-attr]
        assert viewer.sessions()[0]["buffered"] in (0, 5000)  # a GET of the client's may have taken it
        assert viewer.look()["totals"][0] == 1


def test_sessions_that_are_handed_over(site: Site, viewer: Viewer) -> None:
    with Client(site.app, transport="websocket") as client:
        session, observers = client.socket._session, site.server._registry.observers  # type: ignore[union-attr]
        handle = viewer.sessions()[0]["handle"]
        viewer.look(watched=handle)
        observers.on_moved(session, "out")
        seen = viewer.look(watched=handle)
        assert (seen["moves"], seen["totals"][:3], seen["closes"]) == ({"in": 0, "out": 1}, [0, 1, 0], {})
        assert "another worker" in seen["watched"]["reason"]
        observers.on_moved(session, "in")
        seen = viewer.look()
        assert (seen["moves"], [row["number"] for row in seen["sessions"]]) == ({"in": 1, "out": 1}, [2])


def test_closes_by_reason(site: Site, viewer: Viewer) -> None:
    with Client(site.app), Client(site.app, transport="websocket") as other:
        other.socket.close(reason="he was rude")  # type: ignore[union-attr]
        assert other.wait_closed(60)
    seen = viewer.look()
    assert seen["closes"] == {"he was rude": 1, "transport close": 1}
    assert seen["totals"][:3] == [0, 2, 2]


def test_reasons_that_an_application_makes_up_are_bounded(site: Site, viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_REASONS", 3)
    for number in range(6):
        with Client(site.app, transport="websocket") as client:
            client.socket.close(discard=True, reason=f"reason {number}")  # type: ignore[union-attr]
            assert client.wait_closed(60)
    closes = viewer.look()["closes"]
    assert closes == {"reason 0": 1, "reason 1": 1, "reason 2": 1, "other": 3}


def test_refusals_and_what_to_do(site: Site, viewer: Viewer) -> None:
    site.http.get("/engine.io/?EIO=4&transport=polling&sid=gone")
    site.http.get("/engine.io/?EIO=3&transport=polling")
    found = {kind["code"]: kind for kind in viewer.look()["refusals"]}
    assert found.keys() == {1, 5}
    assert "allow_eio3=True" in found[5]["advice"]
    assert viewer.look()["totals"][3] == 2


def test_the_worker_and_its_load(site: Site, viewer: Viewer) -> None:
    load = viewer.look()["load"]
    assert load["pid"] > 0
    assert load["memory"] > 1_000_000
    assert load["taken"] is True


# -- many sessions


@pytest.fixture
def crowd(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Client]]:
    """More sessions than are shown."""
    monkeypatch.setattr(worker_view, "ROWS", ROWS)
    clients = [Client(site.app, transport="websocket", remote_address=f"10.0.0.{number}") for number in range(ROWS + 5)]
    yield clients
    for client in clients:
        client.close()


def test_the_rest_is_counted(crowd: list[Client], viewer: Viewer) -> None:
    seen = viewer.look()
    assert (seen["found"], len(seen["sessions"])) == (ROWS + 5, ROWS)
    assert [row["number"] for row in seen["sessions"]] == list(range(ROWS + 5, 5, -1))
    assert [row["number"] for row in viewer.sessions(order="oldest")] == list(range(1, ROWS + 1))


def test_sorted_by_what_there_is_most_of(crowd: list[Client], viewer: Viewer) -> None:
    viewer.look()
    crowd[1].send("x")
    crowd[1].receive()
    assert viewer.sessions(order="traffic")[0]["number"] == 2
    assert 2 not in [row["number"] for row in viewer.sessions(order="quietest")]


@pytest.mark.parametrize(("search", "numbers"), [("10.0.0.7", [8]), ("#9", [9]), ("WEBSOCKET", None), ("nobody", [])])
def test_a_search(crowd: list[Client], viewer: Viewer, search: str, numbers: list[int] | None) -> None:
    seen = viewer.look(search=search)
    if numbers is None:
        assert seen["found"] == ROWS + 5
    else:
        assert [row["number"] for row in seen["sessions"]] == numbers


# -- one session


def test_packets_go_by(site: Site, viewer: Viewer) -> None:
    with Client(site.app, transport="websocket") as client:
        handle = viewer.sessions()[0]["handle"]
        assert viewer.look(watched=handle)["watched"]["packets"] == []
        client.send("hello")
        client.receive()
        client.send(b"\x00\x01")
        client.receive()
        packets = viewer.look(watched=handle)["watched"]["packets"]
        shown = [(is_out, kind, is_binary, size, payload) for _, _, is_out, kind, is_binary, size, payload in packets]
        assert sorted(shown) == [(False, "message", False, 5, None), (False, "message", True, 2, None),
                                 (True, "message", False, 5, None), (True, "message", True, 2, None)]
        assert viewer.look(watched=handle, packet=3)["watched"]["packets"][0][0] == 4


def test_payloads_only_if_they_are_switched_on(make_site: Callable[..., Site]) -> None:
    site = make_site(payloads=True)
    viewer = site.viewer()
    with Client(site.app, transport="websocket") as client:
        handle = viewer.sessions()[0]["handle"]
        viewer.look(watched=handle)
        client.send("x" * 1000)
        client.receive()
        client.send(b"\x00\xff")
        client.receive()
        packets = viewer.look(watched=handle)["watched"]["packets"]
        assert {payload for *_, payload in packets} == {"x" * 400, "00 ff"}


def test_watching_changes_nothing_for_the_session(site: Site, viewer: Viewer) -> None:
    with Client(site.app, transport="websocket") as client:
        viewer.look(watched=viewer.sessions()[0]["handle"])
        for number in range(1000):
            client.send(str(number))
        assert [client.receive() for _ in range(1000)] == [str(number) for number in range(1000)]
        seen = viewer.look(watched=viewer.sessions()[0]["handle"])["watched"]
        assert seen["missed"] + len(seen["packets"]) >= 2000


def test_what_was_too_fast_is_counted(site: Site, viewer: Viewer) -> None:
    with Client(site.app, transport="websocket") as client:
        handle = viewer.sessions()[0]["handle"]
        viewer.look(watched=handle)
        for _ in range(400):
            client.send("x")
            client.receive()
        seen = viewer.look(watched=handle)["watched"]
        assert (seen["missed"], len(seen["packets"])) == (500, 300)


def wait_unwatched(client: Client) -> None:
    """Return when the last watch of a session has ended."""
    while client.socket._session.inbox.has("flush"):  # type: ignore[union-attr]
        gevent.sleep(0.01)


def test_a_page_that_was_away_gets_the_packets_of_the_next_watch(
        site: Site, viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(site.app, transport="websocket") as client:
        handle = viewer.sessions()[0]["handle"]
        monkeypatch.setattr(watches, "PATIENCE", 0.02)
        viewer.look(watched=handle)
        for _ in range(2):
            client.send("hello")
            client.receive()
        wait_unwatched(client)
        # as long as the watch lasts, the page has the first two pairs
        assert viewer.look(watched=handle, packet=4)["watched"]["missed"] == 0
        monkeypatch.undo()
        viewer.look(watched=handle, packet=4)
        client.send("hello")
        client.receive()
        seen = viewer.look(watched=handle, packet=4)["watched"]
        assert (seen["missed"], [size for *_, size, _ in seen["packets"]]) == (0, [5, 5])


def test_a_session_that_nobody_watches_any_more_is_written_to_as_before(
        site: Site, viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "PATIENCE", 0.02)
    with Client(site.app, transport="websocket") as client:
        viewer.look(watched=viewer.sessions()[0]["handle"])
        wait_unwatched(client)
        client.send("hello")
        client.receive()
        assert not client.socket._session.outbox.watched  # type: ignore[union-attr]


def test_a_session_is_closed(site: Site, viewer: Viewer) -> None:
    with Client(site.app, transport="websocket") as client:
        handle = viewer.sessions()[0]["handle"]
        viewer.look(watched=handle)
        answer = viewer.ask("close", session=handle)
        assert answer == {"type": "closed", "session": handle, "done": True}
        assert client.wait_closed(60)
        seen = viewer.look(watched=handle)
        assert (seen["watched"]["reason"], seen["watched"]["row"]) == (CLOSED_BY_INSPECTOR, None)
        assert seen["closes"] == {CLOSED_BY_INSPECTOR: 1}
        assert viewer.ask("close", session=handle)["done"] is False


@pytest.mark.parametrize("handle", ["", ".", "x", ".1", "other.1", "-1", "AAAA.999", "AAAA.x", "AAAA.²"])
def test_a_session_that_is_not_there(site: Site, viewer: Viewer, handle: str) -> None:
    assert viewer.ask("close", session=handle)["done"] is False
    assert viewer.look(watched=handle)["watched"] is None


def test_what_is_no_question_ends_the_pages_session(site: Site, viewer: Viewer) -> None:
    viewer.client.send("rubbish")
    assert viewer.client.wait_closed(60)
    assert site.viewer().look()["found"] == 0


# -- hostile strings


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(user=st.text(max_size=40), address=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40))
def test_a_clients_strings_stay_strings(site: Site, viewer: Viewer, user: str, address: str) -> None:
    """They arrive in the page as values of JSON, whatever they contain."""
    with Client(site.app, transport="websocket", remote_address=address) as client:
        client.socket.data["user"] = user  # type: ignore[union-attr]
        row = viewer.sessions()[0]
        assert (row["user"], row["address"]) == (user.encode("utf-8", "surrogatepass").decode("utf-8", "replace"), address)
