"""gunicorn's settings that our worker cannot honour, and with which it refuses to start. It honours all others."""

from __future__ import annotations

from engineio_wsgi.vendors.gunicorn_workers import GunicornSettings

__all__ = ["REFUSED", "refusal"]

_NO_HTTP2 = "only HTTP/1 is served; let a proxy speak HTTP/2"
_ASGI = "it is for ASGI applications, and this worker serves WSGI"

#: by setting: why any value but gunicorn's default is refused, and what to do instead
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
    "suppress_ragged_eofs": "a client may end a TLS connection without close_notify; leave it out",
    "threads": "each request has a greenlet instead; leave it out, and set worker_connections",
    "uwsgi_allow_ips": "uWSGI's protocol is not served; leave it out",
    "websocket_max_message_size": f"{_ASGI}; set max_http_buffer_size of the engine's Server(...)",
}
#: values that are accepted beside the default, because they ask for what is done anyway
_HARMLESS: dict[str, tuple[object, ...]] = {"sendfile": (False,)}


def refusal(cfg: GunicornSettings) -> str | None:
    """One line about the first setting that cannot be honoured: its name, the reason, and what to do; ``None`` if there is none.

    Args:
        cfg: gunicorn's settings; an older gunicorn has fewer.
    """
    for name, reason in REFUSED.items():
        setting = cfg.settings.get(name)
        if setting is None or setting.get() in _HARMLESS.get(name, ()):
            continue
        if setting.get() != type(setting)().get():
            return f"{name}: engineio_wsgi.gunicorn.Worker cannot honour it: {reason}"
    return None
