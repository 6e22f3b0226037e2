"""gunicorn's configuration behind nginx or HAProxy; gunicorn reads it by itself in the directory that it is started in."""

worker_class = "engineio_wsgi.gunicorn.Worker"
#: sessions live in one process; see the option cluster of Server before there are more
workers = 1
#: clients at a time, a WebSocket and a waiting poll are one each; LimitNOFILE has to be higher
worker_connections = 4000
#: seconds; longer than the proxy keeps idle connections, or it sends a POST into one that is just being closed
keepalive = 75
#: seconds that sessions get to fetch what waits for them when the server stops; whoever stops it has to wait longer
graceful_timeout = 10
#: gunicornc is not used, and its socket would be in a home that the service does not have
control_socket_disable = True
