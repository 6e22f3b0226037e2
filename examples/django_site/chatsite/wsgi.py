"""What a WSGI server serves: Django, with the engine round it."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chatsite.settings")
django_application = get_wsgi_application()

from chatsite.live import server  # noqa: E402  (needs Django to be set up)

application = server.wrap(django_application)
