"""The live inspector: a page that shows the current sessions of all workers.

It is a WSGI application::

    inspector = Inspector(server, allow=is_admin)
    app = inspector.mount(server.wrap(flask_app), "/inspector")

Owns the page, and the records of a server's sessions for it. A server without an inspector keeps no records.
"""

from engineio_wsgi.inspector.application import Inspector
from engineio_wsgi.inspector.password import Password

__all__ = ["Inspector", "Password"]
