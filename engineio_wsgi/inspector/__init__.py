"""The live inspector: a page that shows the sessions of all workers as they are.

It is a WSGI application::

    inspector = Inspector(server, allow=is_admin)
    app = inspector.mount(server.wrap(flask_app), "/inspector")

Owns the page, and what is kept of a server's sessions for it. Without an inspector, nothing of this exists.
"""

from engineio_wsgi.inspector.application import Inspector
from engineio_wsgi.inspector.password import Password

__all__ = ["Inspector", "Password"]
