"""The package's metadata is in setup.cfg; these are the parts in C, which may be left out where there is no compiler."""

from setuptools import Extension, setup

PARTS_IN_C = ("engineio_wsgi/http/c_lane_requests", "engineio_wsgi/protocol/websocket/c_batches",
              "engineio_wsgi/session/c_plain_messages")
#: what all of them include
SHARED = ["engineio_wsgi/c_module.h"]

setup(ext_modules=[Extension(part.replace("/", "."), [f"{part}.c"], depends=SHARED, optional=True) for part in PARTS_IN_C])
