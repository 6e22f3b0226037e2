"""A session: its state machine, write buffer, heartbeat and upgrade, and the `Socket` that applications see.

This room must not know HTTP, the engine and other workers.
"""
