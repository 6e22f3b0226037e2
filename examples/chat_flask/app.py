"""A chat for people who have logged in: Flask serves the pages, the engine carries the messages.

Run it with ``python app.py [PORT]``, open http://127.0.0.1:8000 in two windows and log in under two names; or serve
``app:application`` with any WSGI server that `engineio_wsgi` knows.
"""

from __future__ import annotations

import json
import secrets
import sys

import flask
from gevent.pywsgi import WSGIServer
from werkzeug.wrappers import Request, Response

import engineio_wsgi as engine

app = flask.Flask(__name__)
app.secret_key = secrets.token_bytes(32)


@app.get("/")
def home() -> Response | str:
    """The chat, for those who are logged in."""
    if "user" not in flask.session:
        return flask.redirect("/login")
    return flask.render_template("chat.html", user=flask.session["user"])


@app.get("/login")
def login_form() -> str:
    """The form that asks for a name."""
    return flask.render_template("login.html")


@app.post("/login")
def login() -> Response:
    """Logs in: from now on the browser sends a signed cookie with every request, the engine's included."""
    flask.session["user"] = flask.request.form["user"].strip() or "nobody"
    return flask.redirect("/")


def user_of(request: Request) -> str | None:
    """Who sent a request that Flask has not dispatched: its session cookie says so."""
    with app.request_context(request.environ):
        return flask.session.get("user")


def logged_in(request: Request) -> bool:
    """Whether a handshake may open a session."""
    if user_of(request) is None:
        raise engine.Forbidden("log in first")
    return True


server = engine.Server(allow_request=logged_in)
application = server.wrap(app)


@server.on("connection")
def connected(socket: engine.Socket) -> None:
    """One person in the room, from the first message to the last."""
    user = user_of(socket.request)
    tell_all(user, "has come in")
    for text in socket:
        if isinstance(text, str):
            tell_all(user, text)
    tell_all(user, "has left")


def tell_all(user: str | None, text: str) -> None:
    """Everybody reads it, the speaker too."""
    server.broadcast(json.dumps({"user": user, "text": text}))


if __name__ == "__main__":
    address = ("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    WSGIServer(address, application, handler_class=engine.WebSocketHandler).serve_forever()
