"""The command line: the demo, and a server for any wrapped WSGI application.

Owns the arguments, the signals and the exit status. Every option whose value can be written as text is a flag and an environment
variable; both come from the declaration of the options. A flag overrides its variable. An option that the application passes to
`Server(…)` overrides both, and a line on stderr says so.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn
from wsgiref.types import WSGIApplication

from gevent import ssl

from engineio_wsgi.cli.binds import Bound, bind_text, inherited_binds, open_binds
from engineio_wsgi.cli.collecting import add_collection_flags, set_collection_defaults, settle_heap
from engineio_wsgi.cli.hints import argument_hint
from engineio_wsgi.cli.inspecting import choose_password, with_inspector
from engineio_wsgi.cli.link import WorkerEnd, inherit
from engineio_wsgi.cli.loading import load_application
from engineio_wsgi.cli.logs import access_log, add_logging_flags, set_up_logging
from engineio_wsgi.cli.master import Master
from engineio_wsgi.cli.patching import patch_standard_library
from engineio_wsgi.cli.serving import Serving, ignore_terminal
from engineio_wsgi.cli.watching import WatchedFiles
from engineio_wsgi.cli.webtransports import TRANSPORTS, check_webtransport, webtransport_served
from engineio_wsgi.cli.worker_process import WorkerProcess
from engineio_wsgi.cluster.local.running import automatic_cluster
from engineio_wsgi.demo import demo_application
from engineio_wsgi.engine.worker import set_default_cluster
from engineio_wsgi.errors import CannotListen, ConfigurationError
from engineio_wsgi.errors import CommandFailed as _Failure
from engineio_wsgi.options.environment import from_environ, simple_options
from engineio_wsgi.options.options import option_defaults
from engineio_wsgi.server import Server, join_clusters, servers
from engineio_wsgi.version import __version__

__all__ = ["main"]

DEFAULT_BIND = "127.0.0.1:8000"
ENVIRONMENT = "ENGINEIO_"
#: seconds, by default, that the server has to stop: as long as Docker waits before it kills
GRACEFUL_TIMEOUT = 10.0
_SERVE = """Serve module:app, a WSGI application that is wrapped in an engineio_wsgi.Server. The flags and the ENGINEIO_
variables set the options that the application does not give to its Server(...) itself; Server.from_environ(...) prefers them."""
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
    link = inherit(os.environ)
    try:
        chosen = _parser().parse_args(arguments)
        if chosen.keyfile and not chosen.certfile:
            raise _Failure("--keyfile is of no use without --certfile", 2)
        check_webtransport(chosen)
        if link is not None:
            _run_worker(chosen, link)
        elif chosen.workers is not None or chosen.reload:
            return _run_master(chosen, arguments)
        else:
            _run_alone(chosen)
    except ConfigurationError as error:
        return _fail(link, str(error), 2)
    except _Failure as failure:
        return _fail(link, str(failure), failure.status)
    return 0


def _fail(link: WorkerEnd | None, text: str, status: int) -> int:
    """Say why the command cannot go on; the master says it for its workers."""
    if link is not None:
        link.fail(text, status)
    else:
        print(f"engineio-wsgi: {text}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="engineio-wsgi",
        allow_abbrev=False,
        description="An Engine.IO server. Without a command: the demo, a page that shows a session in a browser.",
        epilog=f"Every option is an environment variable, too: {ENVIRONMENT}PING_INTERVAL=10. DEBUG=engine* prints the log.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    _add_flags(parser, None)
    parser.set_defaults(load=_load_demo, workers=None, reload=False, inspector=None, webtransport=False)
    set_collection_defaults(parser)
    commands = parser.add_subparsers(metavar="command", parser_class=_Parser)
    serve = commands.add_parser("serve", help="serve a WSGI application that was wrapped", description=_SERVE, allow_abbrev=False)
    serve.add_argument("application", help="module:app, or a call that makes it: 'module:create_app()'")
    serve.add_argument("--no-patch", action="store_false", dest="patch",
                       help="do not call gevent.monkey.patch_all() before the application is imported; its handlers must "
                            "then not block in the standard library")
    serve.add_argument("--workers", metavar="NUMBER", type=_positive, default=None,
                       help="start so many worker processes, which serve each other's sessions; SIGHUP replaces them by new ones "
                            "with the code of the moment (one process without a master)")
    serve.add_argument("--reload", action="store_true",
                       help="replace the workers when a file of the application changes; for development")
    serve.add_argument("--inspector", metavar="PATH", default=None,
                       help="show the sessions of all workers on a page under PATH, such as /inspector; its password is printed, "
                            "unless the environment has ENGINEIO_INSPECTOR_PASSWORD")
    serve.add_argument("--webtransport", action="store_true",
                       help="serve WebTransport as well, on the UDP ports with the same numbers; needs --certfile, and the extra "
                            "webtransport")
    _add_flags(serve, argparse.SUPPRESS)
    add_collection_flags(serve)
    serve.set_defaults(load=_load_application)
    return parser


def _add_flags(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the flags of the demo and of ``serve``. The default of ``serve`` must not replace what was given before the command."""
    parser.add_argument("--bind", metavar="ADDRESS", type=bind_text, action="append", default=default,
                        help="where to listen: HOST:PORT, unix:PATH, or fd:NUMBER for an inherited socket; may be repeated "
                             f"(the sockets that systemd passes on, or else {DEFAULT_BIND})")
    parser.add_argument("--certfile", default=default, help="a PEM certificate: serve HTTPS and wss")
    parser.add_argument("--keyfile", default=default, help="its key, if that is in another file")
    parser.add_argument("--graceful-timeout", metavar="SECONDS", type=_seconds,
                        default=GRACEFUL_TIMEOUT if default is None else default,
                        help="on SIGTERM, sessions are closed one by one, and requests answered, within so many seconds "
                             f"({GRACEFUL_TIMEOUT:g}); on SIGINT, all at once")
    add_logging_flags(parser, default)
    group = parser.add_argument_group("options of the engine")
    for name, (form, description) in simple_options().items():
        group.add_argument(_flag(name), metavar=form.shown, default=default, help=description.replace("%", "%%"))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _given_options(chosen: argparse.Namespace) -> dict[str, object]:
    """The options that the environment and the flags set. Flags become variables, for ``Server.from_environ()``."""
    if chosen.webtransport and ENVIRONMENT + "TRANSPORTS" not in os.environ:
        os.environ[ENVIRONMENT + "TRANSPORTS"] = TRANSPORTS
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


def _load(chosen: argparse.Namespace) -> WSGIApplication:
    """Import the application, with the options that were given."""
    given = _given_options(chosen)
    with option_defaults(given):
        application: WSGIApplication = chosen.load(chosen)
    _tell_what_is_overridden(given)
    return application if chosen.inspector is None else with_inspector(application, chosen.inspector)


def _run_alone(chosen: argparse.Namespace) -> None:
    """Serve in this process. Blocks."""
    _choose_password(chosen)
    application = _load(chosen)
    join_clusters()
    set_up_logging(chosen.log_level)
    context = _ssl_context(chosen)
    bounds = _bind(chosen)
    serving = Serving(application, [bound.listener for bound in bounds], access_log(chosen.access_log), context, False)
    settle_heap(chosen)
    serving.start()
    serving.watch_signals()
    with webtransport_served(application, [bound.listener for bound in bounds], chosen, False):
        _print_urls(bounds, chosen)
        serving.run(chosen.graceful_timeout)
    for bound in bounds:
        bound.close()


def _run_master(chosen: argparse.Namespace, arguments: Sequence[str] | None) -> int:
    """Have workers serve. Blocks. Returns the exit status."""
    _choose_password(chosen)
    set_up_logging(chosen.log_level)
    bounds = _bind(chosen)
    command = _own_command(arguments)
    listeners = [bound.listener for bound in bounds]

    def spawn(generation: int) -> WorkerProcess:
        return WorkerProcess(command, generation, listeners)

    master = Master(spawn, chosen.workers or 1, chosen.graceful_timeout, lambda: _print_urls(bounds, chosen),
                    WatchedFiles() if chosen.reload else None)
    master.watch_signals()
    try:
        return master.run()
    finally:
        for bound in bounds:
            bound.close()


def _own_command(arguments: Sequence[str] | None) -> list[str]:
    """The command line of this process, with the interpreter's flags."""
    if arguments is not None:
        return [sys.executable, "-m", "engineio_wsgi", *arguments]
    return [sys.executable, *sys.orig_argv[1:]]


def _run_worker(chosen: argparse.Namespace, link: WorkerEnd) -> None:
    """Serve as one of the master's workers. Blocks."""
    ignore_terminal()
    try:
        application = _load(chosen)
    except (ConfigurationError, _Failure):
        raise
    except Exception as error:
        if not isinstance(error, SyntaxError):
            traceback.print_exc()
        link.fail(_describe(error), 1, [file for file in [getattr(error, "filename", None)] if file])
        sys.exit(1)
    set_default_cluster(automatic_cluster(link.listeners))
    join_clusters()
    set_up_logging(chosen.log_level)
    count = chosen.workers or 1
    serving = Serving(application, link.listeners, access_log(chosen.access_log), _ssl_context(chosen), count > 1)
    settle_heap(chosen)
    serving.start()
    serving.watch_master(link, count, tells_files=chosen.reload)
    with webtransport_served(application, link.listeners, chosen, True):
        link.ready()
        serving.run(chosen.graceful_timeout)


def _describe(error: Exception) -> str:
    """An exception of the application in one line, with its place."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{os.path.relpath(error.filename)}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{os.path.relpath(place.filename)}, line {place.lineno}: {type(error).__name__}: {text}"


def _bind(chosen: argparse.Namespace) -> list[Bound]:
    try:
        return open_binds(chosen.bind or inherited_binds(os.environ) or [DEFAULT_BIND])
    except CannotListen as error:
        raise _Failure(error.strerror, 1) from None


def _choose_password(chosen: argparse.Namespace) -> None:
    """The password of the inspector, if there is one, for this process and its workers."""
    if chosen.inspector is not None and (password := choose_password()) is not None:
        print(f"engineio-wsgi: the password of the inspector at {chosen.inspector}/ is {password}", flush=True)


def _print_urls(bounds: Sequence[Bound], chosen: argparse.Namespace) -> None:
    for bound in bounds:
        print(f"engineio-wsgi {__version__} listens on {bound.url('https' if chosen.certfile else 'http')}", flush=True)


def _ssl_context(chosen: argparse.Namespace) -> ssl.SSLContext | None:
    if not chosen.certfile:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(chosen.certfile, chosen.keyfile)
    except OSError as error:
        raise _Failure(f"cannot use the certificate {chosen.certfile}: {error.strerror or error}", 2) from None
    return context
