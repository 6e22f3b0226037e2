"""The servers of a process, as those of other workers know them."""

from __future__ import annotations

from typing import Any

import pytest
from gevent.pywsgi import WSGIHandler, WSGIServer

from engineio_wsgi import Server, WebSocketHandler
from engineio_wsgi.cluster.listeners import Listeners


@pytest.mark.parametrize(("kind", "serves"), [(WSGIHandler, False), (WebSocketHandler, True)], ids=["gevent's", "ours"])
def test_whether_a_closed_server_serves_connections_of_others(kind: Any, serves: bool) -> None:
    engine = Server()
    server = WSGIServer(("127.0.0.1", 0), engine.wrap(lambda environ, start_response: []), handler_class=kind, log=None)
    server.start()
    listener = Listeners(engine._worker).learn(server)
    assert listener is not None
    assert listener.serves
    server.close()
    assert listener.serves is serves
