"""How a client's connection leaves the server loop that accepted it, and how another loop adopts it.

Private names of gevent, gunicorn and gevent-websocket are used here. This room must not know Engine.IO sessions.
"""
