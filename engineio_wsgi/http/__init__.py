"""HTTP/1.x on a connection: request heads, bodies, responses, the handler, and the policies of the engine's own responses.

This room must not know Engine.IO sessions.
"""
