"""What the resumable sweeps share: one JSON line for each question that was asked, so that a second run takes up what the first has left."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from app.catalogue.facts import short
from tests.op_db import Case, cases, differentiable_page

T = TypeVar("T")
Said = TypeVar("Said")


@dataclass(frozen=True)
class Asked:
    """One of PyTorch's samples in one dtype, and what is wanted of it."""

    case: Case
    dtype: torch.dtype
    kind: str

    @property
    def title(self) -> str:
        variant = f"/{self.case.info.variant_test_name}" if self.case.info.variant_test_name else ""
        return f"{self.case.info.name}{variant} {self.case.number} {self.dtype} {self.kind}"


def small_samples(
    kinds: Iterable[str],
    dtypes: Iterable[torch.dtype],
    names: tuple[str, ...] | None,
    count: int,
    elements: int,
    left_out: Collection[str] = (),
) -> Iterator[Asked]:
    """PyTorch's samples of operations that have a derivative, in every dtype they take, for each of `kinds`.

    Arguments:
        names: of operations; None: all.
        count: samples of each operation.
        elements: of all inputs of a sample, at most.
        left_out: operations that are not asked.
    """
    for dtype in dtypes:
        for case in cases(differentiable_page, count, dtype, names):
            if isinstance(case, str) or short(case.operation) in left_out:
                continue
            tensors = [t for value in case.inputs.values() for t in (value if isinstance(value, list) else [value])]
            if 0 < sum(tensor.numel() for tensor in tensors) <= elements:
                yield from (Asked(case, dtype, kind) for kind in kinds)


def swept(
    asked: Iterable[T], title: Callable[[T], str], complaint: Callable[[T], Said], results: Path
) -> Iterator[tuple[T, Said]]:
    """Each question with what is wrong with its reply, empty where nothing is; asked only where `results` does not hold it."""
    results.parent.mkdir(parents=True, exist_ok=True)
    known = dict(map(json.loads, results.read_text().splitlines())) if results.exists() else {}
    with results.open("a") as file:
        for one in asked:
            said = known.get(title(one))
            if said is None:
                said = complaint(one)
                file.write(json.dumps([title(one), said]) + "\n")
                file.flush()
            yield one, said


def run(
    module: str,
    description: str | None,
    results: Path,
    asked: Iterable[T],
    title: Callable[[T], str],
    complaint: Callable[[T], str],
    arguments: list[str],
) -> None:
    """A sweep's command: asks what is not known yet, prints every complaint and how many replies there were of each kind."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument(
        "--results", type=Path, default=results, help="one JSON line a question; what is there is not asked again"
    )
    parser.add_argument("--only", default="", help="questions whose titles hold this")
    parser.add_argument("--every", type=int, default=1, help="each so many questions one")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    wanted = (one for one in itertools.islice(asked, 0, None, chosen.every) if chosen.only in title(one))
    for one, said in swept(wanted, title, complaint, chosen.results):
        counts[said.partition(":")[0] if said else "right"] += 1
        if said and not said.startswith("refused"):
            sys.stdout.write(f"{title(one)}: {said}\n")
    sys.stdout.write("".join(f"{count} {what}\n" for what, count in counts.most_common()))
