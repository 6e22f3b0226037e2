"""Tables that are generated from what the package declares, so that they cannot say something else."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


class Table(SphinxDirective):
    """A table with a header."""

    header: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, ...]]:
        """The cells, in reStructuredText."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """The nodes of the table."""
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for row in [self.header, *self.rows()]:
            lines += [f"   {'* -' if number == 0 else '  -'} {cell}" for number, cell in enumerate(row)]
        return self.parse_text_to_nodes("\n".join(lines))

    def parse_text_to_nodes(self, text: str, /, **_: Any) -> list[nodes.Node]:
        """As in newer Sphinx."""
        node = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), source="declared"), self.content_offset, node)
        return node.children


class Options(Table):
    """``.. options::``"""

    header = ("option", "default", "meaning")

    def rows(self) -> list[tuple[str, ...]]:
        """See `options.option_table`."""
        from engineio_wsgi.options.options import option_table

        return [(f"``{name}``", f"``{default}``", text) for name, default, text in option_table()]


class Metrics(Table):
    """``.. metrics::``"""

    header = ("series", "kind", "labels beside ``path``", "meaning")

    def rows(self) -> list[tuple[str, ...]]:
        """See `metrics.COUNTERS`, `metrics.GAUGES` and `metrics.HISTOGRAMS`."""
        from engineio_wsgi.metrics import COUNTERS, GAUGES, HISTOGRAMS

        rows = [(f"``engineio_{name}_total``", "counter", labels, text) for name, text, labels in COUNTERS]
        rows += [(f"``engineio_{name}``", "gauge", labels, text) for name, text, labels in GAUGES]
        rows += [(f"``engineio_{name}``", "histogram", (), text) for name, text, _ in HISTOGRAMS]
        return [(name, kind, ", ".join(labels), text) for name, kind, labels, text in rows]


class CommandLine(SphinxDirective):
    """``.. command-line:: [COMMAND]``: what ``--help`` says."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A literal block."""
        import os
        import subprocess
        import sys

        command = [sys.executable, "-m", "engineio_wsgi", *self.arguments, "--help"]
        text = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"}).stdout
        return [nodes.literal_block(text, text, language="none")]


def setup(app: Any) -> dict[str, bool]:
    """For Sphinx."""
    app.add_directive("options", Options)
    app.add_directive("metrics", Metrics)
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
