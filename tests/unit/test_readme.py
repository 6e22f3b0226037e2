"""What the README says: its option table is the declaration's, and its snippets run."""

from __future__ import annotations

import re
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from engineio_wsgi.options.options import option_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.rst").read_text()


def snippets(language: str) -> list[str]:
    """The code blocks of one language."""
    blocks = re.findall(rf"^\.\. code-block:: {language}\n\n((?:(?:    .*)?\n)+)", README, re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


def test_the_option_table_is_the_declaration():
    table = README[README.index(".. options\n") : README.index(".. end of options")]
    rows = re.findall(r"   \* - ``(.+)``\n     - ``(.+)``\n     - (.+)\n", table)
    assert rows == option_table()


@pytest.mark.parametrize("number", range(2))
def test_python_snippets_serve_an_echo(number: int):
    import engineio
    import gevent

    code = snippets("python")[number].replace("listen(8000)", 'listen(("127.0.0.1", 0))').replace("8000", "0")
    code = re.sub(r"^(.*)\.serve_forever\(\)$", r"http = \1", code, flags=re.MULTILINE)
    names: dict = {"__name__": "snippet"}
    exec(compile(code, "README.rst", "exec"), names)
    http = names["http"]
    if hasattr(http, "start"):
        http.start()
    received: list[str] = []

    def talk() -> None:
        client = engineio.Client()
        client.on("message", received.append)
        client.connect(f"http://127.0.0.1:{http.address[1]}", transports=["websocket"])
        client.send("hello")
        heard.wait(60)
        client.disconnect()

    heard = threading.Event()
    talking = threading.Thread(target=talk)
    talking.start()
    with gevent.Timeout(60):
        while not received:
            gevent.sleep(0.01)
        heard.set()
        while talking.is_alive():
            gevent.sleep(0.01)
    names["server"].close(1)
    if http is not names["server"]:
        http.stop()
    assert received[0].endswith("hello")
    assert "engineio_wsgi" in sys.modules


def test_there_are_four_snippets():
    assert len(snippets("python")) == 3
    assert len(snippets("javascript")) == 1


def test_the_flask_snippet_greets():
    from engineio_wsgi.testing import Client

    names: dict = {"__name__": "snippet"}
    exec(compile(snippets("python")[2], "README.rst", "exec"), names)
    with Client(names["app"]) as client:
        assert client.receive() == "hello somebody"
