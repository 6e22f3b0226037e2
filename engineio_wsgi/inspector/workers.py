"""Asks all workers of the inspected server's cluster the same question. Knows no pages and no sessions."""

from __future__ import annotations

from typing import NamedTuple

from engineio_wsgi.cluster.router import Cluster
from engineio_wsgi.inspector.worker_view import WorkerView
from engineio_wsgi.server import Server

__all__ = ["Answers", "Workers"]

#: the topic that the workers' inspectors subscribe to
TOPIC = "engineio:inspector"
#: seconds in which a worker has to answer
TIMEOUT = 1.0
#: seconds in which this process has to answer, if the hub of the inspected server is in another thread
HUB_TIMEOUT = 5.0


class Answers(NamedTuple):
    """What the workers have answered.

    Attributes:
        texts: the answers.
        silent: the ids of the workers that did not answer in time.
    """

    texts: list[str]
    silent: list[str]


class Workers:
    """The workers of one server's cluster; without a cluster, this process.

    Args:
        server: the server whose sessions are shown.
        view: this worker's.
    """

    def __init__(self, server: Server, view: WorkerView) -> None:
        self._server = server
        self._view = view
        # through `server.cluster`, this process would join the cluster now, which may be before a fork
        server._topics.subscribe(TOPIC, view.answer)

    def ask(self, question: str) -> Answers:
        """Ask all workers. Blocks until they have answered, for a second at most."""
        cluster = self._server.cluster
        if not isinstance(cluster, Cluster):
            return Answers(self._ask_here(question), [])
        replies = cluster.ask(TOPIC, question, timeout=TIMEOUT)
        texts = {worker: reply for worker, reply in replies.items() if isinstance(reply, str)}
        return Answers(list(texts.values()), [worker for worker in cluster.workers() if worker not in texts])

    def _ask_here(self, question: str) -> list[str]:
        """Ask this process, in the hub of the inspected server if it has one already."""
        registry = self._server._registry
        if registry.hub is None:
            return [self._view.answer(question)]
        answers: list[str] = []
        registry.run_in_hub(lambda: answers.append(self._view.answer(question)), HUB_TIMEOUT)
        return answers
