"""The WebSocket object that an application finds in ``environ["wsgi.websocket"]``, and its writer.

This room must not know HTTP connections and the engine.
"""
