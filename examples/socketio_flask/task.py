"""A process that serves no clients, such as a worker of Celery, emits to those of the chat: ``python task.py ROOM TEXT``."""

import os
import sys

from engineio_wsgi.contrib.socketio import ClusterManager

manager = ClusterManager("local:" + os.environ.get("CLUSTER", "chat"), write_only=True)


def announce(room, text):
    """What a task would call."""
    manager.emit("said", {"user": "the server", "room": room, "text": text}, room=room)


if __name__ == "__main__":
    announce(*sys.argv[1:3])
