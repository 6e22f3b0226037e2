"""The files of the inspector's page, and the headers that keep other sites out of it. Serves files of this package only."""

from __future__ import annotations

from importlib.resources import files

from engineio_wsgi.http.response import Response

__all__ = ["line", "page", "redirect"]

_JAVASCRIPT, _CSS, _HTML = "text/javascript; charset=UTF-8", "text/css; charset=UTF-8", "text/html; charset=UTF-8"
#: what is served: the package with the file, its name, and its type
FILES = {
    "/": ("engineio_wsgi.inspector", "index.html", _HTML),
    "/style.css": ("engineio_wsgi.inspector", "style.css", _CSS),
    **{f"/{name}.js": ("engineio_wsgi.inspector", f"{name}.js", _JAVASCRIPT)
       for name in ("inspector", "charts", "formats", "history", "tables", "watched")},
    # the client that the demo shows
    "/client.js": ("engineio_wsgi.demo", "client.js", _JAVASCRIPT),
}
#: the page runs its own scripts only, and none of them may make HTML of a text; no page may frame it. ws: and wss: because not
#: every browser takes 'self' for them
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' ws: wss:; base-uri 'none'; "
          "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
HEADERS = [
    ("Content-Security-Policy", POLICY),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]


def page(path: str) -> Response:
    """The file under a path of the page; 404 if there is none."""
    if path not in FILES:
        return line("404 Not Found", "the inspector has no such page")
    package, name, content_type = FILES[path]
    return _response("200 OK", content_type, files(package).joinpath(name).read_bytes())


def line(status: str, text: str, *headers: tuple[str, str]) -> Response:
    """A response that is one line of text."""
    return _response(status, "text/plain; charset=UTF-8", f"{text}\n".encode(), *headers)


def redirect(location: str) -> Response:
    """To another path."""
    return line("308 Permanent Redirect", "the page has a slash at its end", ("Location", location))


def _response(status: str, content_type: str, body: bytes, *headers: tuple[str, str]) -> Response:
    return Response(status, [("Content-Type", content_type), ("Content-Length", str(len(body))), *HEADERS, *headers], body)
