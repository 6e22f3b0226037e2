"""gunicorn's configuration. gunicorn reads it in the directory in which it is started."""

worker_class = "engineio_wsgi.gunicorn.Worker"
#: they serve each other's clients by themselves: no sticky sessions, no Redis
workers = 4
bind = "127.0.0.1:8000"
control_socket_disable = True
