"""gunicorn's configuration behind nginx or HAProxy. gunicorn reads it in the directory in which it is started."""

worker_class = "engineio_wsgi.gunicorn.Worker"
#: one for each core; several serve each other's sessions by themselves
workers = 1
#: clients of a worker: each WebSocket and each waiting poll counts; LimitNOFILE has to be higher
worker_connections = 4000
#: seconds; longer than the proxy keeps idle connections, or it sends a POST to one that is just being closed
keepalive = 75
#: seconds in which sessions get their last messages when the server stops; what stops the server has to wait longer
graceful_timeout = 10
#: nothing uses gunicornc, and its socket would be in a home directory that the service does not have
control_socket_disable = True
