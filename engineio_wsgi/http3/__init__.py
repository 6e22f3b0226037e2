"""WebTransport over HTTP/3 on a UDP socket: QUIC connections, the requests that open sessions, and their streams.

Owns the socket, and the windows of flow control. Knows nothing of Engine.IO: a request becomes the environ of a WSGI application,
and what admits it gets the session. `ports` and `offer` need no other package. The rest needs aioquic, which is in the extra
``webtransport``.
"""
