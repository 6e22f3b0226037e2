"""A Flask application with a login, and an engine in front of it."""

from __future__ import annotations

from typing import Any

import flask

from engineio_wsgi.contrib.flask import EngineIO
from support.serving import LocalServer, Served


class Site:
    """An application with a login, and its engine."""

    def __init__(self, **options: Any) -> None:
        self.ended: list[str] = []
        self.engineio = EngineIO(**options)
        self.app = flask.Flask("site")
        self.app.config["SECRET_KEY"] = "secret"
        pages = flask.Blueprint("pages", __name__)
        pages.add_url_rule("/login/<user>", view_func=self.login)
        self.app.register_blueprint(pages)
        self.app.teardown_appcontext(lambda error: self.ended.append(flask.g.pop("name", "")))

    def login(self, user: str) -> str:
        """A page."""
        flask.session["user"] = user
        return f"hello {user}"

    def serve(self) -> Served:
        """Serve both, under our handler."""
        self.engineio.init_app(self.app)
        self.running = LocalServer(None, "ours", server=self.engineio, wsgi=lambda _: self.app)
        return self.running.served

    def stop(self) -> None:
        """Stop what :meth:`serve` has started."""
        if hasattr(self, "running"):
            self.running.stop()


def logged_in(served: Served, user: str) -> list[tuple[str, str]]:
    """The cookie of a user who has logged in."""
    response = served.connect().get(f"/login/{user}")
    return [("Cookie", (response.header("Set-Cookie") or "").split(";")[0])]
