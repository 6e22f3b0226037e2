"""Which of the sub-protocols that a WebSocket client offers is agreed on: the option ``subprotocols``, in force."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["SUBPROTOCOL", "Subprotocols", "choose_subprotocol", "take_subprotocol"]

logger = logging.getLogger("engine.ws")

SUBPROTOCOL = "Sec-WebSocket-Protocol"

#: names in order of preference; or a callable that takes the offered names and the request; ``None``: the first offered
Subprotocols = tuple[str, ...] | Callable[[list[str], Any], str | None] | None


def choose_subprotocol(option: Subprotocols, offered: Sequence[str], request_of: Callable[[], Any]) -> str | None:
    """The sub-protocol of a WebSocket, ``None`` for none. Blocks as long as the application's own choice does.

    Args:
        offered: what the client offers, most wanted first.
        request_of: makes the request, for the application's own choice.
    """
    if not offered:
        return None
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
    """Take the sub-protocol out of a handshake's headers, which middlewares and listeners have seen and may have changed."""
    others = [header for header in headers if header[0].lower() != SUBPROTOCOL.lower()]
    if len(others) == len(headers):
        return headers, None
    chosen = next(value for name, value in reversed(headers) if name.lower() == SUBPROTOCOL.lower())
    if chosen not in offered:
        logger.error("the header %s is %r, which was not offered; none is agreed on", SUBPROTOCOL, chosen)
        return others, None
    return others, chosen
