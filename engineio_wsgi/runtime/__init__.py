"""Connections, the clock and deadlines, the event loop, the greenlet pool, threads, forks, and the observers.

This room must know no HTTP, no WebSocket and no session.
"""
