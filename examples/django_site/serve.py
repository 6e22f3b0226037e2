"""Serves the site with gevent. First time: ``python manage.py migrate`` and ``python manage.py createsuperuser``.

Then ``python serve.py [PORT]``, and log in at http://127.0.0.1:8000/login/.
"""

from __future__ import annotations

import sys

from chatsite.wsgi import application
from gevent.pywsgi import WSGIServer

from engineio_wsgi import WebSocketHandler

if __name__ == "__main__":
    address = ("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    WSGIServer(address, application, handler_class=WebSocketHandler).serve_forever()
