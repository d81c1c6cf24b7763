"""Private pages: what was written is dropped where it is asked for, with a look at the page map of either kind and without, and nothing else."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest

from app.pool.slabs import private_pages
from app.pool.slabs.private_pages import PrivatePages

PAGES = 40
SIZE = PAGES * mmap.PAGESIZE


class Mapped:
    """A file's memory, and a private mapping of it."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("pages")
        os.ftruncate(self.descriptor, SIZE)
        self.file = mmap.mmap(self.descriptor, SIZE)
        self.file[:] = b"f" * SIZE
        self.own = mmap.mmap(self.descriptor, SIZE, flags=mmap.MAP_PRIVATE)
        self.pages = PrivatePages(self.own)

    def write(self, *pages: int) -> None:
        for page in pages:
            self.own[page * mmap.PAGESIZE + 5] = ord("o")

    def written(self) -> list[int]:
        return [page for page in range(PAGES) if self.own[page * mmap.PAGESIZE + 5] == ord("o")]


@pytest.fixture(params=["with a page map", "that cannot be scanned", "without"])
def mapped(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapped]:
    if request.param == "without":
        monkeypatch.setattr(private_pages, "_PAGEMAP", "/proc/self/no-such-file")
    if request.param == "that cannot be scanned":
        monkeypatch.setattr(private_pages, "_SCAN", 0)
    mapped = Mapped()
    yield mapped
    os.close(mapped.descriptor)


@pytest.mark.parametrize("page", [0, 1, 17, PAGES - 1])
def test_one_written_page_is_found_wherever_it_is(mapped: Mapped, page: int) -> None:
    mapped.write(page)
    mapped.pages.drop(0, SIZE)
    assert mapped.written() == []
    assert mapped.own[:] == b"f" * SIZE


def test_only_what_is_asked_for_is_dropped_to_the_end_of_its_last_page(mapped: Mapped) -> None:
    mapped.write(1, 2, 3, 4, 5)
    mapped.pages.drop(2 * mmap.PAGESIZE, mmap.PAGESIZE + 1)
    assert mapped.written() == [1, 4, 5]


def test_what_the_file_says_later_is_read(mapped: Mapped) -> None:
    assert mapped.own[:] == b"f" * SIZE
    mapped.write(7)
    mapped.file[:] = b"g" * SIZE
    mapped.pages.drop(0, SIZE)
    assert mapped.own[:] == b"g" * SIZE


def test_untouched_pages_are_left_alone() -> None:
    mapped = Mapped()
    assert mapped.own[:] == b"f" * SIZE

    class Watched:
        """Counts what is given back."""

        dropped = 0

        def madvise(self, *_: int) -> None:
            Watched.dropped += 1

    mapped.pages._memory = Watched()  # type: ignore[assignment]
    mapped.pages.drop(0, SIZE)
    assert Watched.dropped == 0
    mapped.write(3)
    mapped.pages.drop(0, SIZE)
    assert Watched.dropped == 1
    os.close(mapped.descriptor)
