"""gevent's patches of the standard library for ``engineio-wsgi serve``: with them, a handler may block in ``time.sleep``."""

from __future__ import annotations

import warnings

from gevent import monkey

__all__ = ["patch_standard_library"]


def patch_standard_library() -> None:
    """Patch what gevent can patch, before the application is imported. Does nothing if it is patched already."""
    if monkey.is_module_patched("threading"):
        return
    with warnings.catch_warnings():
        # gevent warns because ssl has been imported already: by this package and gevent only, which use gevent's own
        warnings.simplefilter("ignore", monkey.MonkeyPatchWarning)
        monkey.patch_all()
