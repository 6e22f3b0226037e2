"""The engine of one process: the registry of its sessions, the admission of requests, and the WSGI application.

This room must not know how other workers are reached.
"""
