"""One warm process for the queries that would end the one that answers them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.forking import Forking

# A stored function, so that what a query cannot do no stored one does either.
LOOK_UP = "def look_up(i: int64, t: float64, o: int64):\n    return embedding_bag(i, t, o)\n"


@pytest.fixture(scope="package")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    folder = tmp_path_factory.mktemp("functions")
    (folder / "look_up.py").write_text(LOOK_UP)
    with Forking(functions=str(folder)) as running:
        yield running
