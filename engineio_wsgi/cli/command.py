"""The command line: the demo, and a server for any wrapped WSGI application.

Owns the arguments, the signals and the exit status. Every option whose value can be written as text is a flag and an environment
variable; both come from the declaration of the options. A flag overrides its variable. An option that the application passes to
`Server(…)` overrides both, and a line on stderr says so.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn
from wsgiref.types import WSGIApplication

import gevent
from gevent import ssl
from gevent.event import Event

from engineio_wsgi.cli.hints import argument_hint
from engineio_wsgi.cli.loading import load_application
from engineio_wsgi.cli.logs import access_log, add_logging_flags, set_up_logging
from engineio_wsgi.cli.patching import patch_standard_library
from engineio_wsgi.demo import demo_application
from engineio_wsgi.errors import CannotListen, ConfigurationError
from engineio_wsgi.errors import CommandFailed as _Failure
from engineio_wsgi.http.http_server import StoppableServer
from engineio_wsgi.options.environment import from_environ, simple_options
from engineio_wsgi.options.options import option_defaults
from engineio_wsgi.runtime.forks import call_in_child
from engineio_wsgi.server import Server, close_servers, join_clusters, servers
from engineio_wsgi.version import __version__

__all__ = ["main"]

DEFAULT_BIND = "127.0.0.1:8000"
ENVIRONMENT = "ENGINEIO_"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: seconds that sessions have to fetch what is left, and requests to be answered, when the server is asked to stop
GRACE = 3.0
_SERVE = """Serve module:app, a WSGI application that is wrapped in an engineio_wsgi.Server. The flags and the ENGINEIO_
variables set the options that the application does not give to its Server(...) itself; Server.from_environ(...) prefers them."""
BIND = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\s]*)):(?P<port>\d{1,5})")

#: a flag in the text of ``--help``
FLAG = re.compile(r"(?<![\w-])--?\w[\w-]*")


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line that names ``--help``."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # as in typeshed, which overloads it
        """Called by `argparse` with the arguments."""
        self._given = sys.argv[1:] if args is None else args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        known = FLAG.findall(self.format_help())
        raise _Failure(f"{message}{argument_hint(message, self._given, known)} (see {self.prog} --help)", 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``engineio-wsgi``. Blocks until SIGINT or SIGTERM.

    Args:
        arguments: without the name of the program; ``None`` takes those of the process.

    Returns:
        The exit status.
    """
    try:
        chosen = _parser().parse_args(arguments)
        if chosen.keyfile and not chosen.certfile:
            raise _Failure("--keyfile is of no use without --certfile", 2)
        given = _given_options(chosen)
        with option_defaults(given):
            application = chosen.load(chosen)
        _tell_what_is_overridden(given)
        join_clusters()
        _serve(application, chosen)
    except ConfigurationError as error:
        print(f"engineio-wsgi: {error}", file=sys.stderr)
        return 2
    except _Failure as failure:
        print(f"engineio-wsgi: {failure}", file=sys.stderr)
        return failure.status
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="engineio-wsgi",
        allow_abbrev=False,
        description="An Engine.IO server. Without a command: the demo, a page that shows a session in a browser.",
        epilog=f"Every option is an environment variable, too: {ENVIRONMENT}PING_INTERVAL=10. DEBUG=engine* prints the log.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    _add_flags(parser, None)
    parser.set_defaults(load=_load_demo)
    commands = parser.add_subparsers(metavar="command", parser_class=_Parser)
    serve = commands.add_parser("serve", help="serve a WSGI application that was wrapped", description=_SERVE, allow_abbrev=False)
    serve.add_argument("application", help="module:app, or a call that makes it: 'module:create_app()'")
    serve.add_argument("--no-patch", action="store_false", dest="patch",
                       help="do not call gevent.monkey.patch_all() before the application is imported; its handlers must "
                            "then not block in the standard library")
    _add_flags(serve, argparse.SUPPRESS)
    serve.set_defaults(load=_load_application)
    return parser


def _add_flags(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the flags of the demo and of ``serve``. The default of ``serve`` must not replace what was given before the command."""
    bind = DEFAULT_BIND if default is None else default
    parser.add_argument("--bind", metavar="HOST:PORT", type=_address, default=bind, help=f"where to listen ({DEFAULT_BIND})")
    parser.add_argument("--certfile", default=default, help="a PEM certificate: serve HTTPS and wss")
    parser.add_argument("--keyfile", default=default, help="its key, if that is in another file")
    add_logging_flags(parser, default)
    group = parser.add_argument_group("options of the engine")
    for name, (form, description) in simple_options().items():
        group.add_argument(_flag(name), metavar=form.shown, default=default, help=description.replace("%", "%%"))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _address(text: str) -> str:
    match = BIND.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return text


def _split_address(text: str) -> tuple[str, int]:
    match = BIND.fullmatch(text)
    assert match is not None
    return match["six"] or match["host"] or "", int(match["port"])


def _given_options(chosen: argparse.Namespace) -> dict[str, object]:
    """The options that the environment and the flags set. Flags become variables, for ``Server.from_environ()``."""
    for name in simple_options():
        text = getattr(chosen, name, None)
        if text is not None:
            os.environ[ENVIRONMENT + name.upper()] = text
    return from_environ(os.environ, ENVIRONMENT)


def _tell_what_is_overridden(given: Mapping[str, object]) -> None:
    """Print a line for each flag and variable that the application overrides."""
    for name, value in given.items():
        others = sorted({repr(used) for server in list(servers) if (used := getattr(server.options, name)) != value})
        for used in others:
            variable = ENVIRONMENT + name.upper()
            print(f"engineio-wsgi: {_flag(name)} or {variable} has no effect: the application sets {name}={used} itself",
                  file=sys.stderr)


def _load_demo(chosen: argparse.Namespace) -> WSGIApplication:
    return demo_application(Server())


def _load_application(chosen: argparse.Namespace) -> WSGIApplication:
    if chosen.patch:
        patch_standard_library()
    return load_application(chosen.application)


def _serve(application: WSGIApplication, chosen: argparse.Namespace) -> None:
    set_up_logging(chosen.log_level)
    http = _listen(application, chosen)
    asked_to_stop = Event()
    watchers = [gevent.signal_handler(number, asked_to_stop.set) for number in SIGNALS]
    call_in_child(_reset_signals)
    scheme = "https" if chosen.certfile else "http"
    host = _split_address(chosen.bind)[0] or "localhost"
    host = f"[{host}]" if ":" in host else host
    print(f"engineio-wsgi {__version__} listens on {scheme}://{host}:{http.server_port}/", flush=True)
    asked_to_stop.wait()
    http.stop_gracefully(GRACE, close_servers)
    for number, watcher in zip(SIGNALS, watchers, strict=True):
        watcher.cancel()
        signal.signal(number, signal.SIG_IGN)  # the interpreter is about to end


def _reset_signals(served: bool) -> None:
    """In a forked child: let a signal end the process at once. The child may never run an event loop that could handle it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _ssl_context(chosen: argparse.Namespace) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(chosen.certfile, chosen.keyfile)
    except OSError as error:
        raise _Failure(f"cannot use the certificate {chosen.certfile}: {error.strerror or error}", 2) from None
    return context


def _listen(application: WSGIApplication, chosen: argparse.Namespace) -> StoppableServer:
    secure = {"ssl_context": _ssl_context(chosen)} if chosen.certfile else {}
    http = StoppableServer(_split_address(chosen.bind), application, log=access_log(chosen.access_log), **secure)
    try:
        http.listen()
    except CannotListen as error:
        raise _Failure(error.strerror, 1) from None
    return http
