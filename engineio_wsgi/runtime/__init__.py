"""What the engine runs on: connections, the greenlet pool, threads, and the counters of an observer.

This room must know no HTTP, no WebSocket and no session.
"""
