"""The project under gevent's server, without a patched standard library: ``python unpatched.py PORT``."""

from __future__ import annotations

import logging
import sys

from gevent.pywsgi import WSGIServer
from project.wsgi import application

from engineio_wsgi import WebSocketHandler

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    WSGIServer(("127.0.0.1", int(sys.argv[1])), application, handler_class=WebSocketHandler, log=None).serve_forever()
