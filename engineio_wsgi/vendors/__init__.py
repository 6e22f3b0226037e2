"""The private names of gevent, gunicorn, gevent-websocket, redis-py and prometheus_client that this package relies on.

Owns every use of them, one module for each part of a vendor, so that a vendor's change affects one place only.
`tests/unit/vendors` has a test for each name and behaviour, which fails when a vendor changes it. This room is below all others,
because connections, the HTTP server and the hand-off need the same names: it imports nothing of this package.
Most of these packages have no types: Protocols say what is used of their objects.
"""
