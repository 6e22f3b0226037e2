"""What users see of the package's objects is what the API's documentation has, and nothing else."""

from __future__ import annotations

from engineio_wsgi import Server, Socket
from engineio_wsgi.engine.engine import Engine
from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.engine.server_events import ServerEvents
from engineio_wsgi.engine.worker import Worker

PROPERTIES = {
    "buffered", "close_description", "close_reason", "closed", "data", "groups", "id", "moved", "protocol", "ready_state",
    "remote_address", "request", "server", "transport", "upgraded", "upgrading", "write_buffer",
}  # fmt: skip
METHODS = {
    "close", "emit", "expire_at", "flush", "join", "leave", "listeners", "off", "on", "once", "receive", "send", "spawn",
    "wait_closed", "write",
}  # fmt: skip

SERVER_PROPERTIES = {"address", "clients", "clients_count", "cluster", "options"}
SERVER_METHODS = {
    "attach", "broadcast", "close", "disconnect", "emit", "from_environ", "generate_id", "handle_request", "handle_socket",
    "handle_upgrade", "handle_webtransport", "listen", "listeners", "members", "off", "on", "once", "send", "serve_forever",
    "upgrades", "use", "wrap",
}  # fmt: skip
#: what a framework's integration overrides
SERVER_HOOKS = {"_admit", "_on_start", "_request_of", "_socket_class", "_stand_in", "_unwrap"}


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


def test_the_names_of_a_server() -> None:
    assert public_names(Server) == SERVER_PROPERTIES | SERVER_METHODS
    assert not {name for name in vars(Server()) if not name.startswith("_")}


def test_a_server_is_neither_its_registry_nor_its_engine() -> None:
    assert not {Engine, Registry, ServerEvents, Worker} & set(Server.__mro__)
    assert all(isinstance(getattr(Server, name), property) for name in SERVER_PROPERTIES)
    assert all(callable(getattr(Server, name)) for name in SERVER_METHODS)
    assert all(getattr(Server, name).__doc__ for name in SERVER_PROPERTIES | SERVER_METHODS)


def test_the_docstring_of_a_server_has_its_hooks() -> None:
    assert all(f"``{name}" in str(Server.__doc__) and hasattr(Server, name) for name in SERVER_HOOKS)
