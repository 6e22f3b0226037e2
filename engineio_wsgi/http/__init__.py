"""HTTP/1.x on a connection: request heads, bodies, responses, the handler, the roster, and the policies of engine responses.

This room must not know Engine.IO sessions.
"""
