"""The inspector of a cluster over Redis: what it shows while Redis is there, and while it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.redis import RedisServer
from werkzeug.wrappers import Response

import engineio_wsgi
from engineio_wsgi.inspector import Inspector
from engineio_wsgi.testing import Client

pytestmark = pytest.mark.ours


def test_this_worker_is_shown_without_redis(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    server = engineio_wsgi.Server(cluster=redis.url)
    inspector = Inspector(server, allow=lambda request: True)
    app = inspector.mount(server.wrap(Response("a page")))

    def look() -> Any:
        page.send('{"type": "look"}')
        return json.loads(page.receive())

    try:
        with Client(app) as client, Client(app, "/inspector/live/") as page:
            page.receive()
            for is_there in (True, False):
                if not is_there:
                    redis.kill()
                answer = look()
                assert [row["id"] for row in answer["workers"][0]["sessions"]] == [client.sid[:6] + "…"]
                assert answer["silent"] == []
    finally:
        server.close(timeout=0)
        redis.kill()
