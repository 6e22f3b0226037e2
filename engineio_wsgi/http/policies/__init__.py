"""Policies of the engine's responses: CORS, allowed hosts, the session cookie, compression."""
