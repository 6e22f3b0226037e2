"""Options of other libraries: what each is called here, or where the manual says what there is instead.

Python-engineio's and python-socketio's, Flask-SocketIO's, Channels', websockets' and the reference server's.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from typing import NamedTuple

__all__ = ["find_alias", "hint"]

MANUAL = "the manual's page"


class Alias(NamedTuple):
    """What another library's option stands for.

    Attributes:
        option: of this package; empty if there is none.
        text: more about it, or what there is instead.
    """

    option: str
    text: str = ""


_LOGS = Alias("", f"the logger is logging.getLogger('engine'), or set DEBUG=engine*; see {MANUAL} Troubleshooting")
_QUEUE = Alias("cluster", f"the URL of a Redis, or 'local' on one machine; see {MANUAL} Several workers")
_SOCKET_IO = Alias("", "it is Socket.IO's, and this is the transport below it")
_ASYNC = Alias("", "this server always runs on gevent; leave it out")
_LISTEN = Alias("", "it is for listen((host, port), …) or for the server that the application runs under")
_WORKERS = Alias("", f"start several with engineio-wsgi serve --workers NUMBER, or with gunicorn; see {MANUAL} Several workers")
_NO_LIMIT = Alias("", "payloads are bounded by max_http_buffer_size, in bytes")

#: by their names in small letters without underscores, so that ``pingInterval`` is ``ping_interval``
ALIASES = {
    **dict.fromkeys(("corsallowedorigins", "corsorigins", "corsorigin", "allowedorigins", "alloworigins", "origins", "origin",
                     "corsallowedorigin"), Alias("cors")),
    "corscredentials": Alias("cors", "Cors(origins=…, credentials=True)"),
    **dict.fromkeys(("corsheaders", "corsallowedheaders", "corsmethods"), Alias("cors", "Cors(origins=…, methods=…, headers=…)")),
    **dict.fromkeys(("messagequeue", "clientmanager", "redis", "redisurl", "channellayer", "channellayers", "adapter",
                     "queue", "broker"), _QUEUE),
    "channel": Alias("cluster", "the group in the URL of a Redis: 'redis://HOST/?group=NAME'"),
    **dict.fromkeys(("asyncmode", "loop", "asynchandlers", "monkeypatch"), _ASYNC),
    **dict.fromkeys(("logger", "engineiologger", "logoutput", "loglevel", "verbose", "debug"), _LOGS),
    "managesession": Alias("", "handlers read the handshake's flask.session, and cannot change it; see the manual on Flask"),
    **dict.fromkeys(("alwaysconnect", "namespaces", "namespace", "serializer", "rooms", "serveclient", "connecttimeout",
                     "connectionstaterecovery", "cleanupemptychildnamespaces", "parser"), _SOCKET_IO),
    "json": Alias("", "messages are str or bytes: call json.dumps() and json.loads() in the application"),
    "monitorclients": Alias("", "heartbeats are always watched; leave it out"),
    "servicetaskperiod": Alias("", "there is none; leave it out"),
    **dict.fromkeys(("compressionthreshold", "httpcompressionthreshold"),
                    Alias("http_compression", "HttpCompression(threshold=…)")),
    **dict.fromkeys(("compression", "websocketcompression"),
                    Alias("per_message_deflate", "of poll responses: http_compression")),
    **dict.fromkeys(("maxmessagesize", "maxsize", "maxpayload", "maxpayloadsize", "maxbuffersize", "maxcontentlength"),
                    Alias("max_http_buffer_size")),
    "maxqueue": Alias("max_inbox", "bytes"),
    "writelimit": Alias("max_buffered", "bytes"),
    **dict.fromkeys(("maxdecodepackets", "maxpackets"), _NO_LIMIT),
    "resource": Alias("path"), "endpoint": Alias("path"), "engineiopath": Alias("path"), "socketiopath": Alias("path"),
    "heartbeatinterval": Alias("ping_interval"), "heartbeattimeout": Alias("ping_timeout"), "pingtime": Alias("ping_interval"),
    "closetimeout": Alias("ping_timeout"), "timeout": Alias("ping_timeout"),
    "websocketping": Alias("ping_interval"),
    "cookiename": Alias("cookie"), "cookies": Alias("cookie"),
    **dict.fromkeys(("transport", "allowedtransports"), Alias("transports")),
    "websocket": Alias("transports", "('polling', 'websocket') by default"),
    **dict.fromkeys(("wsengine", "websocketclass"), Alias("", "gevent carries the WebSockets; leave it out")),
    "eio3": Alias("allow_eio3"),
    **dict.fromkeys(("host", "port", "sslcontext", "certfile", "keyfile", "ssl", "backlog"), _LISTEN),
    **dict.fromkeys(("workers", "processes", "threads"), _WORKERS),
    **dict.fromkeys(("authenticate", "auth", "connecthandler"), Alias("allow_request")),
    "idgenerator": Alias("generate_id"),
    "maxconnections": Alias("max_sessions_per_address", "of one address; of all: gunicorn's worker_connections"),
    **dict.fromkeys(("maxconnectionsperip", "maxclientsperip"), Alias("max_sessions_per_address")),
    # of Cors(…): the reference server's and python-engineio's names of its parts
    "allowedheaders": Alias("headers"), "exposedheaders": Alias("expose"), "exposeheaders": Alias("expose"),
    "allowcredentials": Alias("credentials"), "allowmethods": Alias("methods"), "allowedmethods": Alias("methods"),
}


def find_alias(name: str, known: Collection[str]) -> Alias | None:
    """What an option of another library stands for; ``None`` if that is not known."""
    plain = _plain(name)
    same = [each for each in known if _plain(each) == plain]
    if same:
        return Alias(same[0])
    alias = ALIASES.get(plain)
    return alias if alias is None or not alias.option or alias.option in known else None


def hint(name: str, known: Collection[str], shown: Callable[[str], str] = str) -> str:
    """The hint for an option that does not exist.

    Args:
        known: the options that there are.
        shown: how an option is written where it was given.
    """
    alias = find_alias(name, known)
    if alias is None:
        close = difflib.get_close_matches(name, known, 1)
        return f"did you mean {shown(close[0])}?" if close else f"there are {', '.join(map(shown, known))}"
    if not alias.option:
        return alias.text
    return f"did you mean {shown(alias.option)}?" + (f" ({alias.text})" if alias.text else "")


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
