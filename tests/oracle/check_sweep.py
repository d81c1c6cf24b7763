"""`python -m tests.oracle.check_sweep`: thousands of derivatives sent to `check`, right ones and planted mistakes; what it gets wrong.

A second run takes up what the first has left, and prints all that both have seen.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch

from tests.engine.building import Numbers, checked
from tests.oracle import sweeping
from tests.oracle.derivations import Believed, every

RESULTS: Final = Path("build/check.jsonl")
# A factor and a sign have names, which are among those that fit; a single element that is off has none.
_NAMES: Final = {"all signs": {"sign"}, "factor": {"constant_factor", "sign"}}


def complaint(asked: Believed) -> str:
    """What is wrong with the reply; empty where nothing is."""
    inputs: dict[str, Numbers] = dict(asked.inputs)
    report = checked(asked.text, {asked.name: asked.derivative}, "gradient", None, (asked.name,), **inputs)[asked.name]
    if asked.mistake is None:
        return f"a right derivative is called wrong: {report['worst'][:1]}" if report["agrees"] is False else ""
    if report["agrees"] is True:
        return f"a wrong derivative agrees: {report['worst'][:1]}"
    codes = {claim["code"] for claim in (report.get("likely"), *report.get("also_possible", ())) if claim is not None}
    known = _NAMES.get(asked.mistake)
    if report["agrees"] is False and known is not None and not known & codes:
        return f"no name for {asked.mistake}: {sorted(codes)}"
    return ""


def swept(asked: Iterator[Believed], results: Path) -> Iterator[tuple[Believed, str]]:
    return sweeping.swept(asked, lambda one: one.title, complaint, results)


def main(arguments: list[str]) -> None:
    """Asks what `--results` does not hold yet, and prints every wrong reply and how many there were of each kind."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.check_sweep", description=__doc__)
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="one JSON line a question; what is there is not asked again"
    )
    parser.add_argument("--only", default="", help="questions whose titles hold this")
    parser.add_argument("--every", type=int, default=1, help="each so many seeds one")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    asked = (one for one in every(chosen.every) if chosen.only in one.title)
    counts: Counter[str] = Counter()
    for one, said in swept(asked, chosen.results):
        counts[
            f"{'right' if one.mistake is None else 'mistaken'}, {'judged wrongly' if said else 'judged as they are or left open'}"
        ] += 1
        if said:
            sys.stdout.write(f"{one.title}: {said}\n    {one.text!r}\n")
    sys.stdout.write("".join(f"{count} {what}\n" for what, count in counts.most_common()))


if __name__ == "__main__":
    main(sys.argv[1:])
