"""What other workers have to know of this process before they move sessions here, whichever server they belong to."""

from __future__ import annotations

__all__ = ["WorkerProcess", "process"]


class WorkerProcess:
    """Whether this process takes sessions of workers that leave.

    Attributes:
        generation: workers with a higher one were started later, to take the place of others; 0 if nobody counts.
        ready: whether it serves.
        leaving: whether it has been told to stop.
    """

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, generation: int) -> None:
        """It is a worker of this generation, which does not serve yet."""
        self.generation = generation
        self.ready = self.leaving = False

    def become_ready(self) -> None:
        """It serves."""
        self.ready = True

    def begin_to_leave(self) -> None:
        """It has been told to stop."""
        self.leaving = True

    @property
    def takes_sessions(self) -> bool:
        """Whether others may move sessions here."""
        return self.ready and not self.leaving


#: this process
process = WorkerProcess()
