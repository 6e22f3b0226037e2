"""The server's options: declared once, with default, unit, range and help text.

Flags, environment variables and the table in the docs are made from the declaration. This room must not know what an option does.
"""
