"""The project with its engine."""

from __future__ import annotations

import os

from engineio_wsgi.contrib.django import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
application = get_wsgi_application("project.realtime.engineio")
