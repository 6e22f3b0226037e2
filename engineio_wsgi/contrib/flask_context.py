"""The Flask context of a handler: it ends before the handler waits for its client, and a new one begins after the wait.

Also notices that a handler has changed ``flask.session``, which no response would save. It must not know the engine's sessions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import flask.globals
import gevent
from flask.sessions import NullSession, SecureCookieSession, SessionMixin

if TYPE_CHECKING:
    from flask.ctx import RequestContext

__all__ = ["HandlerContext", "SessionWatch", "outside_context"]

logger = logging.getLogger("engine")

#: one of Flask's proxies. Any: Flask types it as what is behind it
Proxy: TypeAlias = Any

#: Flask before 3.2 has two kinds of context; 3.2 has one, and warns if `request_ctx` is used
_request_ctx: Proxy = vars(flask.globals).get("request_ctx", flask.globals.app_ctx)
_app_ctx: Proxy = flask.globals.app_ctx

#: the innermost handler that runs in this greenlet or thread
_running: ContextVar[HandlerContext | None] = ContextVar("engineio.flask.running", default=None)


class HandlerContext:
    """Runs one handler in a request context, which ends early while :func:`outside_context` has it.

    Functions of ``teardown_request`` and ``teardown_appcontext`` run each time that the context ends. One that fails is logged,
    and the handler goes on.

    Args:
        context: not pushed yet.
        on_changed: called when the handler has changed the session.
    """

    __slots__ = ("_app_context", "_context", "_greenlet", "_is_pushed", "_on_changed", "_token", "_watch")

    def __init__(self, context: RequestContext, on_changed: Callable[[], None]) -> None:
        self._context = context
        self._on_changed = on_changed
        self._greenlet = gevent.getcurrent()
        self._is_pushed = False
        self._token: Token[HandlerContext | None] | None = None

    def __enter__(self) -> None:
        """Push the context."""
        self._push()
        self._token = _running.set(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Pop the context, unless a wait has ended it and it could not be pushed again."""
        assert self._token is not None
        _running.reset(self._token)
        if self._is_pushed:
            self._pop(error)

    def leave(self) -> bool:
        """End the context, unless the handler itself has pushed another one inside of it.

        Returns:
            Whether it has ended, so that :meth:`enter_again` has to be called.
        """
        if not self._is_pushed or self._greenlet is not gevent.getcurrent() or not self._is_current():
            return False
        try:
            self._pop(None)
        except BaseException:  # a timeout or a kill that came while the teardown functions ran
            self.enter_again()
            raise
        if self._is_current():  # the handler has pushed the same context once more, so nothing was torn down
            self._context.push()
            self._is_pushed = True
            return False
        return True

    def enter_again(self) -> None:
        """Begin a new context, with the request and the session of the old one, and a ``flask.g`` of its own."""
        if _request_ctx is _app_ctx:
            self._context = self._context.copy()
        # else push() makes a new application context by itself; a copy would double the cost
        self._push()

    def _push(self) -> None:
        try:
            self._context.push()
        except BaseException as error:
            if _current(_request_ctx) is self._context:  # for example, the session could not be opened
                self._pop(error)
            raise
        self._is_pushed = True
        self._app_context = _current(_app_ctx)
        self._watch = SessionWatch(_session_of(self._context))

    def _pop(self, error: BaseException | None) -> None:
        if self._is_pushed and self._watch.has_changed():
            self._on_changed()
        self._is_pushed = False
        try:
            self._context.pop(error)
        except Exception:
            logger.exception("the end of a handler's Flask context failed: a teardown function raised, or the handler did not "
                             "pop a context that it had pushed")

    def _is_current(self) -> bool:
        return _current(_request_ctx) is self._context and _current(_app_ctx) is self._app_context


@contextmanager
def outside_context() -> Iterator[None]:
    """Run a block outside of the context of the running handler. Without a handler, just run the block."""
    handler = _running.get()
    if handler is None or not handler.leave():
        yield
        return
    try:
        yield
    finally:
        handler.enter_again()


def _current(proxy: Proxy) -> object:
    """The context behind one of Flask's proxies; ``None`` without one. The method is werkzeug's, the type Flask's own."""
    return proxy._get_current_object() if proxy else None


def _session_of(context: RequestContext) -> SessionMixin:
    """The session of a pushed context. It does not use the property of Flask 3.1, which marks the session as accessed."""
    attributes = vars(context)
    if "_session" not in attributes:
        return context.session
    session: SessionMixin = attributes["_session"]
    return session


class SessionWatch:
    """Notices whether the content of a session has changed. All it needs of a session is that ``dict`` accepts it."""

    __slots__ = ("_before", "_session")

    def __init__(self, session: SessionMixin) -> None:
        self._session = session
        # Flask's own sessions note changes; of others a copy is kept, which costs time and memory
        self._before = _UNMODIFIED if type(session) in _OWN_KINDS and not session.modified else _content_of(session)

    def has_changed(self) -> bool:
        """Compare with the content at the beginning. A session that cannot be read counts as the same."""
        if self._before is _UNMODIFIED:
            return bool(self._session.modified)
        now = _content_of(self._session)
        try:
            return self._before is not None and now is not None and not _is_same(self._before, now)
        except RecursionError:
            return False


#: the session classes of Flask itself
_OWN_KINDS = (SecureCookieSession, NullSession)
_UNMODIFIED = object()


def _content_of(session: SessionMixin) -> object:
    """A copy of a session: its containers are copied, the other values are not, because some cannot be."""
    try:
        return _copied(dict(session))
    except Exception:  # a store that does not answer, or a container that contains itself
        return None


def _copied(value: object) -> object:
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return set(value)
    return bytes(value) if isinstance(value, bytearray) else value


def _is_same(before: object, now: object) -> bool:
    """Compare two copies. Objects of the application are compared with their own ``==``."""
    if before is now:
        return True
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(_is_same(each, now[key]) for key, each in before.items())
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_is_same, before, now))
    try:
        return bool(before == now)
    except Exception:  # for example, an array of numpy
        return False
