"""Django: an engine whose handlers have the session and the user, because handshakes pass the project's middlewares.

In the project, ``realtime.py``::

    from engineio_wsgi.contrib.django import EngineIO

    engineio = EngineIO()

    @engineio.on("connection")
    def connected(socket):
        socket.send(f"hello {socket.request.user}")

and ``wsgi.py``::

    import os
    from engineio_wsgi.contrib.django import get_wsgi_application

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    application = get_wsgi_application("mysite.realtime.engineio")

Options are in the settings: ``ENGINEIO = {"PING_INTERVAL": 25}``. With ``"engineio_wsgi.contrib.django"`` in ``INSTALLED_APPS``,
``manage.py`` has the command ``runengineio``, and ``manage.py check`` checks the options.
"""

from __future__ import annotations

try:
    import django  # noqa: F401
except ModuleNotFoundError as missing:
    if missing.name != "django":
        raise
    raise ModuleNotFoundError("engineio_wsgi.contrib.django needs Django: pip install 'engineio-wsgi[django]'",
                              name=missing.name) from None

from engineio_wsgi.contrib.django.server import EngineIO, get_wsgi_application
from engineio_wsgi.contrib.django.socket import DjangoSocket

__all__ = ["DjangoSocket", "EngineIO", "get_wsgi_application"]
