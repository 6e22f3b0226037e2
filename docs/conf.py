"""The site: ``tox -e docs``, or ``sphinx-build -W docs docs/_build``."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from engineio_wsgi.version import __version__ as release

project = "engineio-wsgi"
copyright = "the authors of engineio-wsgi"
version = release
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "declared"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"engineio-wsgi {release}"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_mock_imports = ["django"]
napoleon_use_rtype = False
nitpicky = False
