"""Sessions that move to another worker, with their connections, when their worker is replaced.

Owns the format in which they travel, the worker that gives them away, and the worker that takes them. It must not know how the
processes of a server are started and stopped.
"""
