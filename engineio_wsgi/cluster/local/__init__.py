"""Workers of one machine: Unix sockets, their names, and the hand-over of connections."""
