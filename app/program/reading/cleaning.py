"""What surrounds lines that were copied from somewhere: prompts, printed results, fences, typographic signs, indentation.

Everything is replaced sign by sign or blanked, so that lines and columns stay those of the text that was sent.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import Final

# Signs that editors, slides and forums put in the place of Python's; each stands for one, so columns do not move.
_SIGNS: Final = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2013\u2014\u2010\u2011\ufe63\uff0d", "-"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\uff02", '"'),
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\uff07", "'"),
        **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2008\u2009\u200a\u202f\u3000", " "),
        **dict.fromkeys("\u00d7\u2217\u22c5\u00b7", "*"),
        **dict.fromkeys("\u00f7\u2044\u2215", "/"),
        "\uff08": "(",
        "\uff09": ")",
        "\uff0c": ",",
        "\uff1a": ":",
        "\uff1d": "=",
        "\uff1b": ";",
    }
)
_INVISIBLE: Final = re.compile("[\u200b\u200c\u200d\u2060\ufeff\u00ad]")
_PROMPT: Final = re.compile(r"[ \t]*(?:>>>|\.\.\.)(?: |$)|[ \t]*(?:In \[\d*\]|\.{3,}):(?: |$)")
_OPENING: Final = re.compile(r"[ \t]*(?:>>>(?: |$)|In \[\d*\]:)")
_FENCE: Final = re.compile(r"[ \t]*(?:```|~~~)\w*[ \t]*$")
_MAGIC: Final = re.compile(
    r"[ \t]*(?:%{1,2}[a-zA-Z]|!\s*(?:pip3?|conda|apt|apt-get|ls|wget|curl|git|mkdir|unzip|nvidia-smi)\b|\?{1,2}[\w.]+\s*$|[\w.]+\?{1,2}\s*$)"
)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A text without what surrounded it.

    Attributes:
        text: lines that Python's grammar can read.
        margins: for each line, the columns that were taken off before it.
        ignored: line number → what was left out there.
    """

    text: str
    margins: tuple[int, ...]
    ignored: dict[int, str]


def cleaned(text: str) -> Cleaned:
    """`text` as a program alone."""
    plain = _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    signed = plain.translate(_SIGNS)
    ignored: dict[int, str] = {}
    for number, (before, after) in enumerate(zip(plain.split("\n"), signed.split("\n"), strict=True), 1):
        if before != after and not _only_in_comment(before):
            ignored[number] = "typographic signs"
    lines = signed.split("\n")
    margins = [0] * len(lines)
    if any(_OPENING.match(line) for line in lines):
        _without_prompts(lines, margins, ignored)
    for index, line in enumerate(lines):
        if _FENCE.match(line) or _MAGIC.match(line):
            ignored[index + 1] = f"`{line.strip()[:40]}`"
            lines[index] = ""
    lines = _flush(lines, margins)
    return Cleaned("\n".join(lines), tuple(margins), ignored)


def _only_in_comment(line: str) -> bool:
    """Whether the signs stand in a comment, where they mean nothing."""
    code, sharp, _ = line.partition("#")
    return bool(sharp) and code.translate(_SIGNS) == code


def _without_prompts(lines: list[str], margins: list[int], ignored: dict[int, str]) -> None:
    """Prompts are cut off; lines without one are what the interpreter printed."""
    for index, line in enumerate(lines):
        prompt = _PROMPT.match(line)
        if prompt:
            margins[index] += prompt.end()
            lines[index] = line[prompt.end() :]
            ignored.setdefault(index + 1, "prompt signs")
        elif line.strip():
            ignored[index + 1] = "printed results"
            lines[index] = ""


def _flush(lines: list[str], margins: list[int]) -> list[str]:
    """Common indentation taken off; also where only the first line lost its own while it was copied."""
    flush = textwrap.dedent("\n".join(lines)).split("\n")
    filled = [index for index, line in enumerate(lines) if line.strip()]
    if len(filled) > 1 and _is_cut(lines, filled):
        rest = textwrap.dedent("\n".join(lines[filled[0] + 1 :])).split("\n")
        flush = [*lines[: filled[0] + 1], *rest]
    for index in filled:
        margins[index] += len(lines[index]) - len(flush[index])
    return flush


def _is_cut(lines: list[str], filled: list[int]) -> bool:
    """Whether the first line stands flush and ends a statement, while all the others are indented."""
    first = lines[filled[0]].split("#")[0].rstrip()
    if first.startswith((" ", "\t", "@")) or first.endswith((":", "\\", ",", "(", "[", "{")):
        return False
    if first.count("(") > first.count(")") or first.count("[") > first.count("]") or first.count("{") > first.count("}"):
        return False
    if '"""' in first or "'''" in first:
        return False
    return all(lines[index].startswith((" ", "\t")) for index in filled[1:])
