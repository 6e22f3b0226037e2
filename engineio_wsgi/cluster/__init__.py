"""Sessions that any worker can serve. See :mod:`engineio_wsgi.cluster.local` for those of one machine."""
