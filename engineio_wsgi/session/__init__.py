"""One session: its states, its inbox and listeners, write buffer, heartbeat and upgrade, and the `Socket` of applications.

This room must not know HTTP, the engine, or other workers.
"""
