"""`DjangoSocket`: a session whose request is Django's, and whose handlers leave no database connection behind."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from engineio_wsgi.contrib.django.database import call_handler, while_waiting
from engineio_wsgi.session.events import Listener, StandIn
from engineio_wsgi.session.socket import Socket

__all__ = ["DJANGO_REQUEST", "DjangoListener", "DjangoSocket"]

#: where a handshake's environ has the request that has gone through the middlewares
DJANGO_REQUEST = "engineio.django.request"


class DjangoListener(StandIn):
    """A listener with database connections of its own."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the listener, and close what it leaves open."""
        return call_handler(self.listener, *args, **kwargs)


class DjangoSocket(Socket):
    """A session of :class:`EngineIO`.

    Listeners, what :meth:`spawn` runs and the callbacks of :meth:`send` begin with database connections that work, and what
    they leave open is closed when they end. A handler that waits in :meth:`receive`, in ``for message in socket``, in
    :meth:`flush` or in :meth:`wait_closed` holds a connection only in ``transaction.atomic()``; the next query opens one. So do
    not wait for the client while reading from ``QuerySet.iterator()`` or a cursor. A loop in what :meth:`spawn` runs that sleeps
    calls ``django.db.close_old_connections()`` itself, to hold none while it does.
    """

    __slots__ = ()

    @property
    def request(self) -> HttpRequest:
        """Django's request of the handshake, as the project's middlewares have left it: with ``session``, ``user``, …

        What is loaded when it is first used may be used in any handler. The session was saved when the handshake had been
        answered: a handler that changes it calls ``session.save()`` itself.
        """
        return self._environ[DJANGO_REQUEST]

    def _stand_in(self, function: Listener) -> Listener:
        return DjangoListener(function)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was sent has been written out, without a database connection.

        Returns:
            ``False`` when ``timeout`` seconds passed first.

        Raises:
            SocketClosed: the session ended with something unsent.
        """
        while_waiting()
        return super().flush(timeout)

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Block until the session has ended, without a database connection.

        Returns:
            ``False`` when ``timeout`` seconds passed first.
        """
        while_waiting()
        return super().wait_closed(timeout)

    def _before_waiting(self) -> None:
        while_waiting()
