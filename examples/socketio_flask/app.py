"""A chat with rooms for users who have logged in: Flask-SocketIO on this engine, with any number of workers.

``gunicorn app:app`` starts four workers, as ``gunicorn.conf.py`` says; ``python app.py PORT`` starts one process.
"""

import os
import sys

from flask import Flask, redirect, render_template, request, session, url_for
from flask_socketio import ConnectionRefusedError, emit, join_room, leave_room

from engineio_wsgi.contrib.socketio import SocketIO

app = Flask(__name__)
app.secret_key = os.environ.get("SECRET_KEY", "for development only")
# the name of the cluster is for processes that serve no clients, such as task.py; the workers need none
socketio = SocketIO(app, cluster="local:" + os.environ.get("CLUSTER", "chat"))


@app.get("/")
def chat():
    """The page of the chat."""
    if "user" not in session:
        return redirect(url_for("login"))
    return render_template("chat.html", user=session["user"])


@app.route("/login", methods=["GET", "POST"])
def login():
    """Ask for a name; an application would also ask for a password."""
    if request.method == "POST" and request.form["user"].strip():
        session["user"] = request.form["user"].strip()
        return redirect(url_for("chat"))
    return render_template("login.html")


@socketio.on("connect")
def connected(auth):
    """Refuse those who have not logged in."""
    if "user" not in session:
        raise ConnectionRefusedError("log in first")


@socketio.on("join")
def join(room):
    """Enter a room. What is returned is the acknowledgement."""
    join_room(room)
    emit("said", {"user": session["user"], "room": room, "text": "has come in"}, to=room)
    return {"joined": room}


@socketio.on("leave")
def leave(room):
    """Leave a room."""
    leave_room(room)
    emit("said", {"user": session["user"], "room": room, "text": "has left"}, to=room)


@socketio.on("say")
def say(message):
    """Pass a message on to all in the room, in all workers."""
    emit("said", {"user": session["user"], "room": message["room"], "text": message["text"]}, to=message["room"])
    return {"delivered": True}


if __name__ == "__main__":
    socketio.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
