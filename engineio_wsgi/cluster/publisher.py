"""Publishing to the subscribers of all workers, and asking them: what one worker sends and receives for topics.

Owns the messages of topics and the replies that are waited for. Knows nothing of how messages travel: that is a `Carrier`'s.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Container
from functools import partial
from itertools import count
from typing import NamedTuple, Self

from engineio_wsgi.cluster.local.names import is_worker_id
from engineio_wsgi.cluster.messages import Action, Call, Message, read_number
from engineio_wsgi.cluster.rpc import Answers, Carrier
from engineio_wsgi.cluster.topics import Reply, Topics
from engineio_wsgi.engine.registry import WORKER_ID_SIZE
from engineio_wsgi.errors import BadMessage, UnknownSession
from engineio_wsgi.log import shorten
from engineio_wsgi.session.outgoing import Bundle

__all__ = ["Post", "PostKind", "Publisher", "check_session", "check_timeout", "unknown_session"]

logger = logging.getLogger("engine.cluster")


class PostKind(enum.Enum):
    """The kinds of a topic's messages."""

    PUBLISH = "publish"
    ASK = "ask"
    #: a subscriber has returned this
    REPLY = "reply"
    #: it has returned ``None``
    NOTHING = "nothing"
    #: there is no subscriber, or it has failed
    SILENCE = "silence"
    #: the worker has no such session
    UNKNOWN = "unknown"


_KINDS = {kind.value: kind for kind in PostKind}
#: the kinds that a reply to a question has
REPLIES = (PostKind.REPLY, PostKind.NOTHING)
_FIELDS = 4


class Post(NamedTuple):
    """A message of a topic.

    Attributes:
        kind: its kind.
        topic: its topic.
        data: what is published, or the reply.
        origin: the worker that sends it; empty if no worker does.
        number: of the publisher's messages, of a reply that of the question; 0 if no worker sends it.
        session: it is for the worker of this session; empty if it is for all.
    """

    kind: PostKind
    topic: str
    data: str | bytes
    origin: str = ""
    number: int = 0
    session: str = ""

    @property
    def reply(self) -> Reply:
        """What a subscriber has returned."""
        return self.data if self.kind is PostKind.REPLY else None

    def message(self, group: str) -> Message:
        """The message that carries it."""
        fields = (self.session, self.kind.value, self.origin, str(self.number))
        return Call(group, Action.PUBLISH, fields, to=self.topic).message(self.data)

    @classmethod
    def of(cls, call: Call, body: bytes) -> Self:
        """Read what a call carries.

        Raises:
            BadMessage: it is not a message of a topic.
        """
        if call.action is not Action.PUBLISH or len(call.sids) != _FIELDS or call.to is None:
            raise BadMessage("a message of a topic has the wrong fields")
        session, name, origin, number = call.sids
        kind = _KINDS.get(name)
        data = call.data(body)
        if kind is None or isinstance(data, Bundle):
            raise BadMessage("a message of a topic has an unknown kind")
        return cls(kind, call.to, data, origin, read_number(number), session)


class Publisher:
    """Publishes and asks for one worker. For the hub's thread only.

    Args:
        group: of workers that serve each other's sessions.
        worker_id: this worker's.
        topics: with the subscribers of this process.
        sessions: the ids of the sessions of this process.
        carrier: of messages to the other workers.
    """

    def __init__(self, group: str, worker_id: str, topics: Topics, sessions: Container[str], carrier: Carrier) -> None:
        self._group = group
        self._worker_id = worker_id
        self._topics = topics
        self._sessions = sessions
        self._carrier = carrier
        self._numbers = count(1)
        self._asked: dict[int, Answers[Post]] = {}

    def publish(self, topic: str, data: str | bytes, session: str, worker: str | None = None) -> None:
        """Send a message to the subscribers of all workers, of one session's worker, or of ``worker``. Does not block.

        Raises:
            UnknownSession: no worker can have the session.
        """
        post = self._post(PostKind.PUBLISH, topic, data, session)
        if worker is not None:
            self._send(worker, post)
        elif session:
            self._send(self._worker_of(session), post)
        else:
            self._take(post)
            self._carrier.tell_all(post.message(self._group))

    def ask(self, topic: str, data: str | bytes, timeout: float, session: str) -> dict[str, Reply]:
        """Send the same, and return the replies. Blocks until all have answered, for ``timeout`` seconds at most.

        Raises:
            UnknownSession: no worker has the session.
        """
        post = self._post(PostKind.ASK, topic, data, session)
        answers = self._asked[post.number] = Answers()
        try:
            if session:
                self._send(self._worker_of(session), post, answers.expect)
            else:
                self._ask_all(post, answers)
            is_complete = answers.wait(timeout)
        finally:
            del self._asked[post.number]
        if session and is_complete and all(each.kind is PostKind.UNKNOWN for each in answers.by_worker.values()):
            raise unknown_session(session)
        return {worker: each.reply for worker, each in answers.by_worker.items() if each.kind in REPLIES}

    def _ask_all(self, post: Post, answers: Answers[Post]) -> None:
        if not self._carrier.tell_all(post.message(self._group), lambda others: answers.expect(others + 1)):
            answers.expect(1)
        self._take(post)

    def _post(self, kind: PostKind, topic: str, data: str | bytes, session: str) -> Post:
        return Post(kind, topic, data, self._worker_id, next(self._numbers), session)

    def _worker_of(self, session: str) -> str:
        """The worker that has a session, as far as it is known.

        Raises:
            UnknownSession: no worker can have it.
        """
        if session in self._sessions:
            return self._worker_id
        owner = session[:WORKER_ID_SIZE]
        if owner == self._worker_id or not is_worker_id(owner):
            raise unknown_session(session)
        return owner

    def _send(self, worker: str, post: Post, on_heard: Callable[[int], object] | None = None) -> None:
        """Send a message to one worker, which may be this one. Does not block. ``on_heard``: see :meth:`Carrier.tell`."""
        if worker != self._worker_id:
            self._carrier.tell(worker, post.message(self._group), on_heard)
            return
        if on_heard is not None:
            on_heard(1)
        self._receive(post)

    # -- received messages

    def receive(self, call: Call, body: bytes, name: str = "") -> int:
        """Take a message of another worker. Does not block. Returns the number of workers that have taken it: 0 or 1.

        Args:
            call, body: the message.
            name: a name that this process has taken from another worker, if it was sent to that.

        Raises:
            BadMessage: it is not a message of a topic.
        """
        post = Post.of(call, body)
        is_taken = self._receive(post)
        if not is_taken and name and post.kind is PostKind.ASK and not post.session:
            # it was sent to each of this process's names, and each has to answer
            self._send(post.origin, Post(PostKind.SILENCE, post.topic, b"", name, post.number))
        return int(is_taken)

    def _receive(self, post: Post) -> bool:
        if post.kind is PostKind.PUBLISH or post.kind is PostKind.ASK:
            return self._take(post)
        answers = self._asked.get(post.number)
        if answers is not None:
            answers.add(post.origin, post)
        return True

    def _take(self, post: Post) -> bool:
        """Have the subscribers called with what is published or asked. Returns whether they will be."""
        if post.number and not self._topics.is_newer(post.origin, post.number):
            if post.kind is PostKind.ASK:
                # it came by another name of this worker as well; an answer is waited for from each name
                name = f"{self._worker_id}.{next(self._numbers)}"
                self._send(post.origin, Post(PostKind.SILENCE, post.topic, b"", name, post.number))
            return False
        if post.session and post.session not in self._sessions:
            logger.debug("= %s: a message of the topic %r is for a session that is not here", shorten(post.session), post.topic)
            if post.kind is PostKind.ASK:
                self._reply(post, PostKind.UNKNOWN)
            return False
        answer = partial(self._answer, post) if post.kind is PostKind.ASK else None
        self._topics.deliver(post.topic, post.origin, post.data, answer)
        return True

    def _answer(self, post: Post, has_returned: bool, reply: Reply) -> None:
        """The subscribers have been called with a question."""
        if not has_returned:
            self._reply(post, PostKind.SILENCE)
        elif reply is None:
            self._reply(post, PostKind.NOTHING)
        else:
            self._reply(post, PostKind.REPLY, reply)

    def _reply(self, post: Post, kind: PostKind, data: str | bytes = b"") -> None:
        self._send(post.origin, Post(kind, post.topic, data, self._worker_id, post.number))


def check_session(session: object) -> str:
    """Check a session id that a message is for; ``None`` becomes an empty text.

    Raises:
        TypeError: it is no str.
        UnknownSession: it is empty.
    """
    if session is None:
        return ""
    if not isinstance(session, str):
        raise TypeError(f"session: expected the id of a session, a str, or None; got {type(session).__name__}")
    if not session:
        raise unknown_session(session)
    return session


def check_timeout(timeout: object) -> float:
    """Check the seconds that an answer may take.

    Raises:
        TypeError: it is no number.
        ValueError: it is not more than 0.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout: expected seconds, a number; got {type(timeout).__name__}")
    if not timeout > 0:
        raise ValueError(f"timeout: expected more than 0 seconds; got {timeout!r}")
    return float(timeout)


def unknown_session(session: str) -> UnknownSession:
    """The error that no worker has a session."""
    return UnknownSession(f"no worker has a session with the id {shorten(session)!r}")
