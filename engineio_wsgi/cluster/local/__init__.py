"""Workers of one machine: Unix sockets, their names, and the hand-over of connections.

Owns what crosses between processes of this machine. Must not know Redis, or which requests are for other workers.
"""
