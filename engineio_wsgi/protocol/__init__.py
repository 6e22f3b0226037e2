"""Codecs: bytes to packets, frames and messages, and back.

This room must know no I/O, no clock and no session.
"""
