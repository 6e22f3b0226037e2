"""The choice of a WebSocket's sub-protocol, by the option ``subprotocols``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["SUBPROTOCOL", "Subprotocols", "choose_subprotocol", "take_subprotocol"]

logger = logging.getLogger("engine.ws")

SUBPROTOCOL = "Sec-WebSocket-Protocol"

Request = Any  # werkzeug's, or that of a framework
#: names in order of preference; or a callable that takes the offered names and the request; ``None``: the first offered
Subprotocols = tuple[str, ...] | Callable[[list[str], Request], str | None] | None


def choose_subprotocol(option: Subprotocols, offered: Sequence[str], request_of: Callable[[], Request]) -> str | None:
    """The sub-protocol of a WebSocket, or ``None``. Blocks as long as the option's callable does.

    Args:
        offered: the client's sub-protocols, most wanted first; at least one.
        request_of: makes the request that the option's callable gets.
    """
    if option is None:
        return offered[0]
    if not callable(option):
        return next((name for name in option if name in offered), None)
    try:
        chosen = option(list(offered), request_of()) or None
    except Exception:
        logger.exception("the subprotocols callable failed; none is agreed on")
        return None
    if chosen is None or chosen in offered:
        return chosen
    logger.error("the subprotocols callable returned %r, which was not offered; none is agreed on", chosen)
    return None


def take_subprotocol(headers: list[tuple[str, str]], offered: Sequence[str]) -> tuple[list[tuple[str, str]], str | None]:
    """Remove the sub-protocol from a handshake's headers, which middlewares and listeners may have changed, and return both."""
    others = [header for header in headers if header[0].lower() != SUBPROTOCOL.lower()]
    if len(others) == len(headers):
        return headers, None
    chosen = next(value for name, value in reversed(headers) if name.lower() == SUBPROTOCOL.lower())
    if chosen not in offered:
        logger.error("the header %s is %r, which was not offered; none is agreed on", SUBPROTOCOL, chosen)
        return others, None
    return others, chosen
