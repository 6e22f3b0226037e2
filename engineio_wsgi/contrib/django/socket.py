"""`DjangoSocket`: a session whose request is Django's, and whose handlers leave no database connection open."""

from __future__ import annotations

from django.http import HttpRequest

from engineio_wsgi.contrib.django.database import call_handler, while_waiting
from engineio_wsgi.session.events import Listener, StandIn
from engineio_wsgi.session.socket import Socket

__all__ = ["DJANGO_REQUEST", "DjangoListener", "DjangoSocket"]

#: key of a handshake's environ: the request as the middlewares have left it
DJANGO_REQUEST = "engineio.django.request"


class DjangoListener(StandIn):
    """A listener whose database connections are closed after it."""

    __slots__ = ()

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call the listener, and close the connections that it leaves open."""
        return call_handler(self.listener, *args, **kwargs)


class DjangoSocket(Socket):
    """A session of :class:`EngineIO`.

    Listeners, functions that :meth:`spawn` runs and the callbacks of :meth:`send` begin with database connections that work;
    connections that they leave open are closed when they end. A handler that waits in :meth:`receive`, ``for message in
    socket``, :meth:`flush` or :meth:`wait_closed` keeps a connection only in ``transaction.atomic()``; the next query opens a new
    one. So do not wait for the client while reading from ``QuerySet.iterator()`` or a cursor. A spawned function that sleeps in a
    loop should call ``django.db.close_old_connections()`` before it sleeps.
    """

    __slots__ = ()

    @property
    def request(self) -> HttpRequest:
        """Django's request of the handshake, as the project's middlewares have left it: with ``session``, ``user``, …

        Lazy attributes, such as ``user``, work in any handler. Django has saved the session with the handshake: a handler that
        changes the session has to call ``session.save()``.

        Of a session that has come from another worker (event ``resume``), the request passes the middlewares again when it is
        asked for, once. That may block.

        Raises:
            Forbidden: a middleware refuses it now.
        """
        if DJANGO_REQUEST not in self._environ:
            self._environ[DJANGO_REQUEST] = call_handler(self.server._site.admit, self._environ).request
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
