"""The command line: the demo, and a server for any wrapped WSGI application.

Owns the arguments, the signals and the exit status. Every option that text can say is a flag and an environment variable;
both come from the options' declaration.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import gevent
from gevent import ssl

from engineio_wsgi.demo import demo_application
from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.middleware import Middleware
from engineio_wsgi.options import parse_option, simple_options
from engineio_wsgi.server import HttpServer, Server
from engineio_wsgi.version import __version__

__all__ = ["main"]

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

DEFAULT_BIND = "127.0.0.1:8000"
ENVIRONMENT = "ENGINEIO_"
#: seconds that sessions have to fetch what is left when the server is asked to stop
GRACE = 3.0
#: middlewares that are looked through for the engine
MAX_WRAPPERS = 10
BIND = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\s]*)):(?P<port>\d{1,5})")


class _Failure(Exception):
    """What went wrong, in one line for the user. ``status`` is the exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; ``--help`` says the rest."""

    def error(self, message: str) -> NoReturn:
        raise _Failure(f"{message} (see {self.prog} --help)", 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``engineio-wsgi`` with ``arguments`` (the process's own). Blocks until a signal ends it; returns the status."""
    try:
        chosen = _parser().parse_args(arguments)
        application, server = chosen.load(chosen)
        _serve(application, server, chosen)
    except _Failure as failure:
        print(f"engineio-wsgi: {failure}", file=sys.stderr)
        return failure.status
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="engineio-wsgi",
        description="An Engine.IO server. Without a command: the demo, a page that shows a session in a browser.",
        epilog=f"Every option is an environment variable, too: {ENVIRONMENT}PING_INTERVAL=10. DEBUG=engine* shows what goes on.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    _add_flags(parser, None)
    parser.set_defaults(load=_load_demo)
    commands = parser.add_subparsers(metavar="command", parser_class=_Parser)
    serve = commands.add_parser("serve", help="serve a WSGI application that was wrapped", description=_load_application.__doc__)
    serve.add_argument("application", help="module:app")
    _add_flags(serve, argparse.SUPPRESS)
    serve.set_defaults(load=_load_application)
    return parser


def _add_flags(parser: argparse.ArgumentParser, default: Any) -> None:
    """The flags that the demo and ``serve`` have in common; a command's own default must not undo what stood before it."""
    bind = DEFAULT_BIND if default is None else default
    parser.add_argument("--bind", metavar="HOST:PORT", type=_address, default=bind, help=f"where to listen ({DEFAULT_BIND})")
    parser.add_argument("--certfile", default=default, help="a PEM certificate: serve HTTPS and wss")
    parser.add_argument("--keyfile", default=default, help="its key, if that is in another file")
    group = parser.add_argument_group("options of the engine")
    for name, description in simple_options().items():
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, metavar="VALUE", default=default, help=description.replace("%", "%%"))


def _address(text: str) -> str:
    match = BIND.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return text


def _split_address(text: str) -> tuple[str, int]:
    match = BIND.fullmatch(text)
    assert match is not None
    return match["six"] or match["host"] or "", int(match["port"])


def _given_options(chosen: argparse.Namespace) -> dict[str, str]:
    return {name: text for name in simple_options() if (text := getattr(chosen, name, None)) is not None}


def _load_demo(chosen: argparse.Namespace) -> tuple[Application, Server]:
    try:
        given = {name: parse_option(name, text) for name, text in _given_options(chosen).items()}
        server = Server(**{**Server.from_environ().options.changed(), **given})
    except ConfigurationError as error:
        raise _Failure(str(error), 2) from None
    return demo_application(server), server


def _load_application(chosen: argparse.Namespace) -> tuple[Application, Server | None]:
    """Serve module:app, a WSGI application. The flags become environment variables (ENGINEIO_...) before the module is
    imported; a module that makes its server with Server.from_environ(...) takes them from there."""
    for name, text in _given_options(chosen).items():
        _check(name, text)
        os.environ[ENVIRONMENT + name.upper()] = text
    module_name, _, attribute = chosen.application.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        application = getattr(importlib.import_module(module_name), attribute or "app")
    except ModuleNotFoundError as error:
        if error.name != module_name.partition(".")[0] and error.name != module_name:
            raise
        raise _Failure(f"there is no module {module_name!r}", 2) from None
    except AttributeError:
        raise _Failure(f"the module {module_name!r} has no {attribute or 'app'!r}", 2) from None
    except ConfigurationError as error:
        raise _Failure(str(error), 2) from None
    if not callable(application):
        raise _Failure(f"{chosen.application!r} is not a WSGI application", 2)
    return application, _server_of(application)


def _check(name: str, text: str) -> None:
    try:
        parse_option(name, text)
    except ConfigurationError as error:
        raise _Failure(str(error), 2) from None


def _server_of(application: Any) -> Server | None:
    """The engine's server behind an application and the middlewares round it, to close its sessions at the end."""
    for _ in range(MAX_WRAPPERS):
        if isinstance(application, Middleware):
            return application.server if isinstance(application.server, Server) else None
        attributes = (getattr(application, name, None) for name in ("application", "app", "wsgi_app"))
        application = next((inner for inner in attributes if callable(inner)), None)
    return None


def _serve(application: Application, server: Server | None, chosen: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    http = _listen(application, chosen)
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, _stop, http, server)
    scheme = "https" if chosen.certfile else "http"
    host = _split_address(chosen.bind)[0] or "localhost"
    print(f"engineio-wsgi {__version__} listens on {scheme}://{host}:{http.server_port}/", flush=True)
    http.serve_forever()


def _stop(http: HttpServer, server: Server | None) -> None:
    """Take no more connections, end the sessions, and let the requests that are under way be answered."""
    http.close()
    if server is not None:
        server.close(GRACE)
    http.stop(GRACE)


def _ssl_context(chosen: argparse.Namespace) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(chosen.certfile, chosen.keyfile)
    except OSError as error:
        raise _Failure(f"cannot use the certificate {chosen.certfile}: {error.strerror or error}", 2) from None
    return context


def _listen(application: Application, chosen: argparse.Namespace) -> HttpServer:
    secure = {"ssl_context": _ssl_context(chosen)} if chosen.certfile else {}
    try:
        http = HttpServer(_split_address(chosen.bind), application, **secure)
        http.start()
    except OSError as error:
        raise _Failure(f"cannot listen on {chosen.bind}: {error.strerror or error}", 1) from None
    return http
