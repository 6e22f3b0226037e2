"""Publishing to the subscribers of all workers, and asking them: what one worker sends and receives for topics.

Owns the messages of topics and the replies that are waited for. Knows nothing of how messages travel: that is a `WorkerCaller`'s.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Container
from functools import partial
from itertools import count
from typing import NamedTuple, Protocol, Self

from gevent.event import Event

from engineio_wsgi.cluster.local.names import is_worker_id
from engineio_wsgi.cluster.messages import Action, BadMessage, Call, Message, Result, read_number
from engineio_wsgi.cluster.topics import Reply, Topics
from engineio_wsgi.deadline import Deadline
from engineio_wsgi.engine.registry import WORKER_ID_SIZE
from engineio_wsgi.errors import UnknownSession
from engineio_wsgi.log import shorten
from engineio_wsgi.session.outgoing import Bundle

__all__ = ["Post", "PostKind", "Publisher", "check_session", "check_timeout", "unknown_session"]

logger = logging.getLogger("engine.cluster")


class PostKind(enum.Enum):
    """What a message of a topic is."""

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
_FIELDS = 4


class Post(NamedTuple):
    """A message of a topic.

    Attributes:
        kind: what it is.
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

    def call(self, group: str) -> Call:
        """The call that carries it, without its data."""
        return Call(group, Action.PUBLISH, (self.session, self.kind.value, self.origin, str(self.number)), to=self.topic)

    def message(self, group: str) -> Message:
        """The message that carries it."""
        return self.call(group).message(self.data)

    @classmethod
    def of(cls, call: Call, body: bytes) -> Self:
        """Read what a call carries.

        Raises:
            BadMessage: it is no message of a topic.
        """
        if call.action is not Action.PUBLISH or len(call.sids) != _FIELDS or call.to is None:
            raise BadMessage("a message of a topic with other fields")
        session, name, origin, number = call.sids
        kind = _KINDS.get(name)
        data = call.data(body)
        if kind is None or isinstance(data, Bundle):
            raise BadMessage("a message of a topic of a kind that does not exist")
        return cls(kind, call.to, data, origin, read_number(number), session)


class Carrier(Protocol):
    """Carries messages to other workers, each worker's in order."""

    def tell(self, worker: str, message: Message, on_heard: Callable[[int], object] | None = None) -> bool:
        """Have one worker carry out a call later. Does not block; see `WorkerCaller`."""
        ...

    def tell_all(self, message: Message, on_heard: Callable[[int], object] | None = None) -> bool:
        """Have all others carry out a call later. Does not block; see `WorkerCaller`."""
        ...


class _Question:
    """The replies to a question, until all workers have answered."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.is_unknown = False
        self._answered: set[str] = set()
        self._expected = -1
        self.complete = Event()

    def expect(self, workers: int) -> None:
        """So many workers have got the question."""
        self._expected = workers
        self._look()

    def add(self, worker: str, has_returned: bool, reply: Reply) -> None:
        """A worker has answered."""
        self._answered.add(worker)
        if has_returned:
            self.replies[worker] = reply
        self._look()

    def refuse(self) -> None:
        """No worker has the session."""
        self.is_unknown = True
        self.complete.set()

    def _look(self) -> None:
        if 0 <= self._expected <= len(self._answered):
            self.complete.set()


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
        self._questions: dict[int, _Question] = {}

    def publish(self, topic: str, data: str | bytes, session: str, worker: str | None = None) -> None:
        """Send a message to the subscribers of all workers, of one session's worker, or of ``worker``. Does not block.

        Raises:
            UnknownSession: no worker can have the session.
        """
        post = self._post(PostKind.PUBLISH, topic, data, session)
        if worker is not None:
            self._publish_to(worker, post)
        elif not session:
            self._topics.deliver(topic, self._worker_id, data)
            self._carrier.tell_all(post.message(self._group))
        elif self._is_here(session):
            self._topics.deliver(topic, self._worker_id, data)
        else:
            self._carrier.tell(_owner(session), post.message(self._group))

    def _publish_to(self, worker: str, post: Post) -> None:
        if worker == self._worker_id:
            self._topics.deliver(post.topic, worker, post.data)
        else:
            self._carrier.tell(worker, post.message(self._group))

    def ask(self, topic: str, data: str | bytes, timeout: float, session: str) -> dict[str, Reply]:
        """Send the same, and return the replies. Blocks until all have answered, for ``timeout`` seconds at most.

        Raises:
            UnknownSession: no worker has the session.
        """
        post = self._post(PostKind.ASK, topic, data, session)
        question = self._questions[post.number] = _Question()
        try:
            self._send_question(post, question)
            Deadline(timeout).wait(question.complete)
        finally:
            del self._questions[post.number]
        if question.is_unknown:
            raise unknown_session(session)
        return question.replies

    def _send_question(self, post: Post, question: _Question) -> None:
        answer = partial(question.add, self._worker_id)
        if not post.session:
            if not self._carrier.tell_all(post.message(self._group), lambda others: question.expect(others + 1)):
                question.expect(1)
            self._topics.deliver(post.topic, self._worker_id, post.data, answer)
        elif self._is_here(post.session):
            question.expect(1)
            self._topics.deliver(post.topic, self._worker_id, post.data, answer)
        else:
            self._carrier.tell(_owner(post.session), post.message(self._group),
                               lambda others: question.expect(1) if others else question.refuse())

    def _post(self, kind: PostKind, topic: str, data: str | bytes, session: str) -> Post:
        return Post(kind, topic, data, self._worker_id, next(self._numbers), session)

    def _is_here(self, session: str) -> bool:
        """Whether this worker has the session; if not, another one may have it.

        Raises:
            UnknownSession: no other worker can have it.
        """
        if session in self._sessions:
            return True
        if _owner(session) == self._worker_id or not is_worker_id(_owner(session)):
            raise unknown_session(session)
        return False

    # -- from other workers

    def receive(self, call: Call, body: bytes) -> Result:
        """Take a message of another worker. Does not block. Returns whether it was taken.

        Raises:
            BadMessage: it is no message of a topic.
        """
        post = Post.of(call, body)
        if post.kind is PostKind.PUBLISH or post.kind is PostKind.ASK:
            return Result(int(self._take(post)))
        question = self._questions.get(post.number)
        if question is not None:
            self._take_answer(post, question)
        return Result(1)

    def _take(self, post: Post) -> bool:
        if post.number and not self._topics.is_newer(post.origin, post.number):
            return False
        answer = partial(self._answer, post) if post.kind is PostKind.ASK else None
        if post.session and post.session not in self._sessions:
            logger.debug("= %s: a message of the topic %r is for a session that is not here", shorten(post.session), post.topic)
            if answer is not None:
                self._reply(post, PostKind.UNKNOWN)
            return False
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
        reply = Post(kind, post.topic, data, self._worker_id, post.number)
        self._carrier.tell(post.origin, reply.message(self._group))

    def _take_answer(self, post: Post, question: _Question) -> None:
        if post.kind is PostKind.UNKNOWN:
            question.refuse()
        else:
            question.add(post.origin, post.kind is not PostKind.SILENCE, post.data if post.kind is PostKind.REPLY else None)


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


def _owner(session: str) -> str:
    return session[:WORKER_ID_SIZE]


def unknown_session(session: str) -> UnknownSession:
    """The error that no worker has a session."""
    return UnknownSession(f"no worker has a session with the id {shorten(session)!r}")
