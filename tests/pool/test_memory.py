"""Memory: what does not fit into a worker is refused, and the service answers on."""

from __future__ import annotations

from pathlib import Path

from tests.pool.queries import SMALL
from tests.server import serving


def test_what_does_not_fit_into_a_worker(tmp_path: Path) -> None:
    limits = {"PULLBACK_WORKER_MEMORY_BYTES": str(60 << 20), "PULLBACK_BODY_LIMIT_BYTES": str(100 << 20)}
    with serving(tmp_path / "log.txt", **limits) as server:
        for content in (b'{"operation": "exp"' + b" " * (80 << 20) + b"}",):
            reply = server.http.post("/v1/query", content=content, headers={"Content-Type": "application/json"})
            assert (reply.status_code, reply.json()["code"]) == (507, "out_of_memory")
        # The size of its result hangs on values; one of these refuses it, whichever sees it first.
        query = {"program": "return (zeros(4000, 4000) == x).nonzero()", "inputs": {"x": 0.0}}
        reply = server.http.post("/v1/query", json=query)
        assert reply.json()["code"] in ("out_of_memory", "result_too_large", "too_costly")
        assert server.http.post("/v1/query", json=SMALL).status_code == 200
