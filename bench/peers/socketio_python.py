"""python-socketio and Flask-SocketIO on this engine and on their own.

Usage: socketio_python.py PORT ours|theirs|flask-ours|flask-theirs
"""

import sys

kind = sys.argv[2]
if kind.endswith("theirs"):
    from gevent import monkey

    monkey.patch_all()

import flask
import flask_socketio
import socketio
from gevent.pywsgi import WSGIServer

if kind.endswith("ours"):
    from engineio_wsgi import WebSocketHandler
    from engineio_wsgi.contrib.socketio import Server, SocketIO
else:
    from flask_socketio import SocketIO
    from geventwebsocket.handler import WebSocketHandler
    from socketio import Server

DATA = "x" * 1000


def plain():
    sio = Server(async_mode="gevent")
    sio.on("echo", lambda sid, data: sio.emit("echo", data, to=sid))
    sio.on("ack", lambda sid, data: data)
    sio.on("connect", lambda sid, environ: sio.enter_room(sid, "room"))
    sio.on("shout", lambda sid: sio.emit("said", DATA, to="room"))
    return socketio.WSGIApp(sio)


def with_flask():
    app = flask.Flask(__name__)
    app.secret_key = "for the benchmark only"
    sio = SocketIO(app, async_mode="gevent")
    sio.on("echo")(lambda data: flask_socketio.emit("echo", data))
    sio.on("ack")(lambda data: data)
    sio.on("connect")(lambda: flask_socketio.join_room("room"))
    sio.on("shout")(lambda: flask_socketio.emit("said", DATA, to="room"))
    return app


app = with_flask() if kind.startswith("flask") else plain()
WSGIServer(("127.0.0.1", int(sys.argv[1])), app, handler_class=WebSocketHandler, log=None, backlog=4096).serve_forever()
