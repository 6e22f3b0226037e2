"""``python -m engineio_wsgi`` is ``engineio-wsgi``."""

from __future__ import annotations

import sys

from engineio_wsgi.cli.command import main

sys.exit(main())
