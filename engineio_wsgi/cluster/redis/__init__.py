"""Workers of several machines: requests and WebSocket bytes over the channels of a Redis."""
