"""What happens to a refused request beside its response: the log line, the operator's advice, the event ``connection_error``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from wsgiref.types import WSGIEnvironment

from engineio_wsgi.engine.advice import Advice
from engineio_wsgi.engine.hooks import Hooks
from engineio_wsgi.engine.refusal_advice import RefusalAdvice
from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.errors import ErrorCode, PayloadTooLarge, RequestRefused
from engineio_wsgi.log import Throttle, log_violation, shorten
from engineio_wsgi.runtime.clock import monotonic

__all__ = ["UNREACHED", "Refusals"]

logger = logging.getLogger("engine")

#: key of an environ: why the worker of the request's session did not take the request
UNREACHED = "engineio.unreached"


class Refusals:
    """Reports the refusals of one server."""

    def __init__(self, registry: Registry, hooks: Hooks, advice: Advice) -> None:
        self._registry = registry
        self._hooks = hooks
        self._advice = advice
        self._refusal_advice = RefusalAdvice()
        self._throttle = Throttle()

    def report(self, refusal: RequestRefused, environ: WSGIEnvironment) -> None:
        """A request is about to be answered with ``refusal``. Blocks as long as the ``connection_error`` listeners do."""
        self._registry.observers.on_refused(int(refusal.code), refusal, environ)
        if refusal.code is ErrorCode.SESSION_UNKNOWN:
            refusal.context.update(environ.pop(UNREACHED, {}))
        self._log(refusal, environ.get("REMOTE_ADDR"))
        self._advise(refusal, environ)
        events = self._registry.events
        if "connection_error" in events:
            refusal.attach_request(self._hooks.request_of(environ))
            events.emit_safely("connection_error", refusal)

    def report_too_large(self, error: PayloadTooLarge, environ: WSGIEnvironment) -> None:
        """A request is about to be answered with 413."""
        self._registry.observers.on_refused(int(ErrorCode.BAD_REQUEST), error, environ)
        log_violation(logger, environ.get("REMOTE_ADDR"), type(error), "< %s", error)

    def _log(self, refusal: RequestRefused, address: str | None) -> None:
        if self._throttle.passes((address, refusal.code, refusal.context.get("name")), monotonic()):
            logger.info("< %s: refused: %d %s %s", address, refusal.code, refusal.message, _loggable(refusal.context))

    def _advise(self, refusal: RequestRefused, environ: WSGIEnvironment) -> None:
        self._refusal_advice.tell(refusal, environ)
        registry = self._registry
        is_unknown = refusal.code is ErrorCode.SESSION_UNKNOWN
        if is_unknown and registry.options.generate_id is None and not registry.in_cluster:
            self._advice.foreign_session(environ, refusal.context["sid"], registry.worker_id)
        elif "missing" in refusal.context:
            self._advice.check_can_upgrade(environ, registry.options.transports)


def _loggable(context: Mapping[str, object]) -> dict[str, object]:
    """``context`` with the session id cut short: it is a credential, even if the session is unknown here."""
    return {key: shorten(value) if key == "sid" and isinstance(value, str) else value for key, value in context.items()}
