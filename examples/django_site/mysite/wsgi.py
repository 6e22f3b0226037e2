"""The WSGI application: Django with the engine in front of it."""

from __future__ import annotations

import os

from engineio_wsgi.contrib.django import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = get_wsgi_application("mysite.realtime.engineio")
