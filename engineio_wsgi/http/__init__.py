"""HTTP besides the engine: heads, bodies and responses, origins, cookies, compression, and taking WebSockets over."""
