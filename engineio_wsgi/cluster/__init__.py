"""Sessions that any worker can serve. See :mod:`engineio_wsgi.cluster.routing`."""
