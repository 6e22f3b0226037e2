"""The layer around the engine that knows other workers.

Owns the way of a request to the worker of its session, and the calls to other workers. Must not know how a session works: it
reaches sessions through the engine only.
"""
