"""The package's metadata is in setup.cfg; this is the part in C, which may be left out where there is no compiler."""

from setuptools import Extension, setup

BATCHES = "engineio_wsgi/protocol/websocket/c_batches"

setup(ext_modules=[Extension(BATCHES.replace("/", "."), [f"{BATCHES}.c"], optional=True)])
