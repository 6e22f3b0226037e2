"""gunicorn's settings that our worker cannot honour: it refuses to start with them.

Owns which these are, and what to do instead. All others are honoured; a test knows of each by whom.
"""

from __future__ import annotations

from typing import Any

__all__ = ["REFUSED", "refusal"]

_NO_HTTP2 = "only HTTP/1 is served; let a proxy speak HTTP/2"
_ASGI = "it is for ASGI applications, and this worker serves WSGI"

#: setting -> why another value than gunicorn's default is refused, and what to do
REFUSED = {
    "asgi_disconnect_grace_period": _ASGI,
    "asgi_lifespan": _ASGI,
    "asgi_loop": _ASGI,
    "http2_cleartext": _NO_HTTP2,
    "http2_initial_window_size": _NO_HTTP2,
    "http2_max_concurrent_streams": _NO_HTTP2,
    "http2_max_frame_size": _NO_HTTP2,
    "http2_max_header_list_size": _NO_HTTP2,
    "http_protocols": _NO_HTTP2,
    "protocol": "only HTTP is served; have the proxy speak HTTP instead of uWSGI's protocol",
    "root_path": f"{_ASGI}; set SCRIPT_NAME with raw_env",
    "sendfile": "files are read and sent; leave it out, or set it to False",
    "suppress_ragged_eofs": "a client that leaves without TLS's goodbye has left; leave it out",
    "threads": "each request has a greenlet instead; leave it out, and set worker_connections",
    "uwsgi_allow_ips": "uWSGI's protocol is not served; leave it out",
    "websocket_max_message_size": f"{_ASGI}; set max_http_buffer_size of the engine's Server(...)",
}
#: beside the default, values that ask for nothing else than what is done
_HARMLESS: dict[str, tuple[Any, ...]] = {"sendfile": (False,)}


def refusal(cfg: Any) -> str | None:
    """The first setting that cannot be honoured: its name, why, and what to do, in one line. ``None`` if there is none.

    Args:
        cfg: gunicorn's; an older one may not know each of the settings.
    """
    for name, reason in REFUSED.items():
        setting = cfg.settings.get(name)
        if setting is None or setting.get() in _HARMLESS.get(name, ()):
            continue
        if setting.get() != type(setting)().get():
            return f"{name}: engineio_wsgi.gunicorn.Worker cannot honour it: {reason}"
    return None
