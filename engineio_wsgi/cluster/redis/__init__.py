"""Workers of several machines: requests and WebSocket bytes over the channels of a Redis.

Owns the connections to Redis and the reliable links over it. Must not know which requests are for other workers.
"""
