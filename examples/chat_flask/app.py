"""A chat for users who have logged in: Flask serves the pages, and the engine carries the messages.

Run it with ``python app.py [PORT]``, open http://127.0.0.1:8000 in two windows and log in under two names; or serve
``app:create_app()`` with gunicorn. Under ``flask run``, on port 5000, clients stay on polling.
"""

from __future__ import annotations

import json
import os
import sys

import flask
from gevent.pywsgi import WSGIServer
from werkzeug.wrappers import Response

import engineio_wsgi as engine
from engineio_wsgi.contrib.flask import EngineIO, FlaskSocket

pages = flask.Blueprint("pages", __name__)


def logged_in(request: flask.Request) -> bool:
    """Whether a handshake may open a session."""
    if "user" not in flask.session:
        raise engine.Forbidden("log in first")
    return True


engineio = EngineIO(allow_request=logged_in)


def create_app() -> flask.Flask:
    """The application of one worker. All workers need the same SECRET_KEY to read each other's cookies."""
    app = flask.Flask(__name__)
    app.config.from_mapping(SECRET_KEY=os.environ.get("SECRET_KEY", "for development only"), ENGINEIO_PING_INTERVAL=20)
    app.register_blueprint(pages)
    engineio.init_app(app)
    return app


@pages.get("/")
def home() -> Response | str:
    """The chat, for users who have logged in."""
    if "user" not in flask.session:
        return flask.redirect("/login")
    return flask.render_template("chat.html", user=flask.session["user"])


@pages.get("/login")
def login_form() -> str:
    """The form that asks for a name."""
    return flask.render_template("login.html")


@pages.post("/login")
def login() -> Response:
    """Log in: from now on the browser sends a signed cookie with every request, including the engine's."""
    flask.session["user"] = flask.request.form["user"].strip() or "nobody"
    return flask.redirect("/")


@engineio.on("connection")
def connected(socket: FlaskSocket) -> None:
    """Serve one user until the session ends."""
    user = flask.session["user"]
    tell_all(user, "has come in")
    for text in socket:
        if isinstance(text, str):
            tell_all(user, text)
    tell_all(user, "has left")


def tell_all(user: str, text: str) -> None:
    """Send a line to everybody at every worker, including the speaker."""
    engineio.broadcast(json.dumps({"user": user, "text": text}))


if __name__ == "__main__":
    address = ("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    WSGIServer(address, create_app(), handler_class=engine.WebSocketHandler).serve_forever()
