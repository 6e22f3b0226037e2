"""WebSocket (RFC 6455) without I/O: opening handshake, frames, messages, permessage-deflate, close codes."""
