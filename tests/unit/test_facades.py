"""What users see of the package's objects is what the API's documentation has, and nothing else."""

from __future__ import annotations

from engineio_wsgi import Socket

PROPERTIES = {
    "buffered", "close_description", "close_reason", "closed", "data", "id", "protocol", "ready_state", "remote_address",
    "request", "server", "transport", "upgraded", "upgrading", "write_buffer",
}  # fmt: skip
METHODS = {
    "close", "emit", "flush", "listeners", "off", "on", "once", "receive", "send", "spawn", "wait_closed", "write",
}  # fmt: skip


def public_names(kind: type) -> set[str]:
    """What has no underscore."""
    return {name for name in dir(kind) if not name.startswith("_")}


def test_the_names_of_a_socket() -> None:
    assert public_names(Socket) == PROPERTIES | METHODS


def test_nothing_but_the_names_of_a_socket_can_be_set() -> None:
    assert not hasattr(Socket, "__dict__") or "__dict__" not in Socket.__dict__
    assert all(isinstance(getattr(Socket, name), property) for name in PROPERTIES)
    assert all(callable(getattr(Socket, name)) for name in METHODS)
    assert all(getattr(Socket, name).__doc__ for name in PROPERTIES | METHODS)
