"""What the tests of an application are written with: a client without a port, and a hand-over without a second process.

Owns no behaviour of the server: everything goes through the real handler and the real sessions.
"""

from __future__ import annotations

from engineio_wsgi.errors import Refused
from engineio_wsgi.testing.client import Client
from engineio_wsgi.testing.handover import hand_over

__all__ = ["Client", "Refused", "hand_over"]
