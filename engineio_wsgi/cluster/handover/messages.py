"""What is said before sessions move: who can take them, and the claim on one worker.

Owns the content of these messages; `cluster.messages` has their bytes.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from engineio_wsgi.cluster.handover.format import FORMAT
from engineio_wsgi.cluster.messages import Kind, Message, read_number
from engineio_wsgi.errors import BadMessage

__all__ = ["Candidate", "Claim"]


class Candidate(NamedTuple):
    """A worker that was asked whether it can be an heir.

    Attributes:
        process: the number of its process, which may have several names.
        generation: see `WorkerProcess`.
        ready: whether it serves.
        leaving: whether it has been told to stop.
        resumes: whether its application has a listener of ``resume``.
        claims: how often it has been claimed by a worker that leaves.
        format: the version of the format of snapshots.
        fingerprint: the configuration that workers must share.
    """

    process: int
    generation: int
    ready: bool
    leaving: bool
    resumes: bool
    claims: int
    format: int
    fingerprint: str

    def message(self) -> Message:
        """The answer to the question."""
        return Message(Kind.CANDIDATE, [str(int(field)) for field in self[:-1]] + [self.fingerprint])

    @classmethod
    def of(cls, message: Message) -> Self:
        """Read an answer."""
        fields = message.expect(Kind.CANDIDATE)
        if len(fields) != len(cls._fields):
            raise BadMessage("an answer about an heir with another number of fields")
        process, generation, ready, leaving, resumes, claims, version = map(read_number, fields[:-1])
        return cls(process, generation, bool(ready), bool(leaving), bool(resumes), claims, version, fields[-1])


class Claim(NamedTuple):
    """A worker that leaves wants to move its sessions to the receiver.

    Attributes:
        claims: as the receiver has said it: two workers that leave at the same time must not both take it for unclaimed.
        format, fingerprint: as above.
        names: those of the worker that leaves.
    """

    claims: int
    format: int
    fingerprint: str
    names: tuple[str, ...]

    @classmethod
    def on(cls, candidate: Candidate, names: list[str]) -> Self:
        """The claim on a candidate."""
        return cls(candidate.claims, FORMAT, candidate.fingerprint, tuple(names))

    def message(self) -> Message:
        """The message for it."""
        return Message(Kind.CLAIM, [str(self.claims), str(self.format), self.fingerprint, *self.names])

    @classmethod
    def of(cls, message: Message) -> Self:
        """Read a claim."""
        fields = message.expect(Kind.CLAIM)
        if len(fields) <= len(cls._fields) - 1:
            raise BadMessage("a claim with too few fields")
        claims, version, fingerprint, *names = fields
        return cls(read_number(claims), read_number(version), fingerprint, tuple(names))
