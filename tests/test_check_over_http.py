"""`check` as clients ask it, over HTTP: a derivative that agrees, one that does not, and one of which that cannot be told."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.server import Server

# Program, point, what is believed, the verdict, and the name of the mistake.
VERDICTS: dict[str, tuple[str, Any, Any, bool | None, str | None]] = {
    "agrees": ("sin(x).sum()", [0.5, 2.0], [math.cos(0.5), math.cos(2.0)], True, None),
    "does not": ("sin(x).sum()", [0.5, 2.0], [-math.cos(0.5), -math.cos(2.0)], False, "sign"),
    "cannot tell": ("log(x).sum()", [3.0, 7.0], [0.33, 0.14], None, None),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_a_verdict(server: Server, case: str) -> None:
    program, x, believed, agrees, code = VERDICTS[case]
    query = {"program": program, "inputs": {"x": x}, "want": ["check"], "expected": {"x": believed}}
    reply = server.http.post("/v1/query", json=query)
    assert reply.status_code == 200
    report = reply.json()["check"]["x"]
    assert report["agrees"] is agrees
    assert report.get("likely", {}).get("code") == code
    assert ("reason" in report) is (agrees is None)
