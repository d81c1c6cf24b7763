"""What is wrong with a query's structure, and what to write instead; what is advised is accepted."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import PullbackError
from app.protocols.native.query_body import read_body

_QUERY: dict[str, Any] = {"operation": "softmax", "inputs": {"input": [1.0, 2.0]}, "parameters": {"dim": 0}}

# what is added to the query, words of the advice, the same with the advice followed
ADVICE = [
    ({"dim": 0}, '"parameters": {"dim": …}', {"parameters": {"dim": 0}}),
    ({"x": [1.0]}, '"inputs": {"x": …}', {"inputs": {"x": [1.0]}}),
    ({"want": "vjp"}, '["vjp"]', {"want": ["vjp"]}),
    ({"wrt": "input"}, '["input"]', {"wrt": ["input"]}),
    ({"cotangent": [1.0, 0.0]}, '{"output": …}', {"cotangent": {"output": [1.0, 0.0]}}),
    ({"tangent": [1.0, 0.0]}, '{"x": …}', {"tangent": {"input": [1.0, 0.0]}}),
    ({"inputs": [1.0]}, '{"x": …}', {"inputs": {"input": [1.0]}}),
    ({"wants": ["vjp"]}, "`want`", {"want": ["vjp"]}),
]


@pytest.mark.parametrize(("added", "words", "instead"), ADVICE, ids=[str(case[0]) for case in ADVICE])
def test_what_is_advised_is_accepted(added: dict[str, Any], words: str, instead: dict[str, Any]) -> None:
    with pytest.raises(PullbackError) as caught:
        read_body({**_QUERY, **added})
    assert words in (caught.value.fix or "")
    read_body({**_QUERY, **instead})
