"""A counter for users who have logged in: Django and python-socketio on this engine, with any number of workers.

``gunicorn app:app`` starts four workers, as ``gunicorn.conf.py`` says; ``python app.py PORT`` starts one process.
"""

import os
import sys

import django
import socketio
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import path

from engineio_wsgi.contrib.socketio import Server

settings.configure(
    SECRET_KEY=os.environ.get("SECRET_KEY", "for development only"),
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    INSTALLED_APPS=["django.contrib.sessions"],
)
django.setup()

from django.contrib.sessions.backends.signed_cookies import SessionStore  # noqa: E402  Django has to be set up first

sio = Server()


def login(request):
    """Log in under the name in the query; an application would ask for a password."""
    request.session["user"] = request.GET["user"]
    return HttpResponseRedirect("/")


def index(request):
    """The name of the user."""
    return HttpResponse(f"You are {request.session.get('user', 'nobody')}.", content_type="text/plain")


urlpatterns = [path("", index), path("login", login)]


@sio.event
def connect(sid, environ, auth):
    """Refuse those who have not logged in, and remember the name of the others."""
    cookie = WSGIRequest(environ).COOKIES.get(settings.SESSION_COOKIE_NAME)
    user = SessionStore(cookie).get("user")
    if user is None:
        raise socketio.exceptions.ConnectionRefusedError("log in first")
    sio.save_session(sid, {"user": user, "count": 0})
    sio.enter_room(sid, f"user {user}")


@sio.event
def add(sid, number):
    """Add a number. All connections of the user are told the sum, in all workers."""
    with sio.session(sid) as session:
        session["count"] += number
    sio.emit("sum", {"user": session["user"], "count": session["count"]}, to=f"user {session['user']}")
    return session["count"]


app = socketio.WSGIApp(sio, get_wsgi_application())

if __name__ == "__main__":
    from gevent.pywsgi import WSGIServer

    from engineio_wsgi import WebSocketHandler

    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    WSGIServer(("127.0.0.1", port), app, handler_class=WebSocketHandler).serve_forever()
