"""Words about operations and arguments: from PyTorch's docstrings, else from the reviewed tables."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from app.catalogue.entry import Argument
from app.catalogue.introspect.names import Group, resolve
from app.catalogue.introspect.wording.words import KEYWORDS, MEANINGS, SUMMARIES

_DOCUMENTATION: Final = "https://docs.pytorch.org/docs/stable/"
# In characters: 4 of 554 summaries and 10 of 2,146 meanings are cut.
_SUMMARY_LIMIT: Final = 220
_MEANING_LIMIT: Final = 160
# Pages that several functions share.
_SHARED_PAGES: Final[tuple[tuple[str, str], ...]] = (
    ("special.", "special.html#torch.special.{short}"),
    ("masked.", "masked.html"),
)
_REFERENCE: Final = re.compile(r"(?:See|Alias for|Alias of)\s+:\w+:`~?(?:torch\.)?([\w.]+?)(?:\(\))?`", re.I)
_SIGNATURE: Final = re.compile(r"^\s*[\w.]+\(.*?\)\s*->\s*.*$|^\s*[\w.]+\([^)]*\)\s*$", re.S)
_ABBREVIATIONS: Final = re.compile(r"\b(?:e\.g|i\.e|w\.r\.t|vs|etc|Eq|no)\.$")


def documentation(group: Group) -> str:
    """The operation's page in PyTorch's documentation."""
    for prefix, page in _SHARED_PAGES:
        if group.path.startswith(prefix):
            return _DOCUMENTATION + page.format(short=group.path.removeprefix(prefix))
    if group.path in ("Tensor.T", "Tensor.H", "Tensor.mT", "Tensor.mH"):
        return f"{_DOCUMENTATION}tensors.html#torch.{group.path}"
    return f"{_DOCUMENTATION}generated/torch.{group.path}.html"


def summary(group: Group) -> str:
    """One sentence that says what the operation computes."""
    written = SUMMARIES.get(group.name)
    if written is not None:
        return written
    for text in _docs(group):
        for paragraph in re.split(r"\n\s*\n", text):
            first = _first_sentence(_plain(paragraph))
            if first:
                return first
    return ""


def keywords(group: Group) -> str:
    """Words under which the search should find the operation besides its names and summary."""
    return KEYWORDS.get(group.name, "")


def meaning(group: Group, argument: Argument) -> str:
    """One line on an argument: from the docstring's list of arguments, else by its name."""
    for text in _docs(group):
        description = _arguments(text).get(argument.name)
        if description is None and argument.name == "input":
            description = _arguments(text).get("A") or _arguments(text).get("x")
        if description:
            return description
    return MEANINGS.get(argument.name, "") or MEANINGS.get(f"{argument.kind}", "")


def _docs(group: Group) -> list[str]:
    """Docstrings of the function, of its other names, and of what they refer to."""
    docs: list[str] = []
    for path in (group.path, *sorted(group.aliases, key=lambda a: a.startswith("Tensor."))):
        text = _doc(path)
        if text:
            docs.append(text)
        reference = _REFERENCE.search(text)
        if reference and reference[1] != path:
            docs.append(_doc(reference[1]))
    return [text for text in docs if text]


@cache
def _doc(path: str) -> str:
    try:
        return resolve(path).__doc__ or ""
    except AttributeError:
        return ""


def _plain(text: str) -> str:
    """reStructuredText as plain text."""
    text = re.sub(r":math:\s*`([^`]*)`", lambda m: "`" + _mathematics(m[1]) + "`", text)
    text = re.sub(r":(?:class|func|meth|attr|ref|mod|obj|data):`~?([^`<]*?)(?:\s*<[^`>]*>)?`", r"`\1`", text)
    text = re.sub(r"`([^`<]+?)\s*<[^`>]*>`_{1,2}", r"\1", text)
    text = text.replace("``", "`").replace("`self`", "`input`")
    return re.sub(r"\s+", " ", text).strip()


def _mathematics(text: str) -> str:
    text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", text)
    text = re.sub(r"\\(?:text|mathrm|operatorname|mathbb|mathcal|frac|left|right|big|Big)\b\*?", "", text)
    text = (
        text.replace("\\times", "×")
        .replace("\\leq", "≤")
        .replace("\\geq", "≥")
        .replace("\\infty", "∞")
        .replace("\\cdot", "·")
        .replace("\\neq", "≠")
        .replace("\\otimes", "⊗")
    )
    return re.sub(r"\\(\w+)", r"\1", text).replace("{", "").replace("}", "").replace("\\", "").strip()


def _first_sentence(text: str) -> str:
    if (
        not text
        or text.startswith(
            (
                ".. ",
                "See ",
                "Alias ",
                "This function",
                "This is ",
                "Note",
                "Warning",
                "`_",
                "Keyword",
                "- ",
                "Args",
                "Expects",
                "Before",
                "`self.",
                "Return an attribute",
                ">>>",
                "dim (",
                "`x.",
                "`torch.nonzero",
                "The boolean tensor `mask` defines",
                "The inputs ",
                "Out-",
                "Out-of",
            )
        )
        or _SIGNATURE.match(text)
    ):
        return ""
    text = re.sub(r"^[\w.]+\([^)]*\)\s*->\s*[\w(), .\[\]]+?\s(?=[A-Z])", "", text)
    sentence = ""
    for piece in re.split(r"(?<=[.:])\s+", text):  # a colon ends it too: a formula follows
        sentence = f"{sentence} {piece}".strip()
        if sentence.endswith((".", ":")) and not _ABBREVIATIONS.search(sentence):
            break
    sentence = re.split(r"\s*\.\. math|\s*Args:|\s*Arguments:|\s*Example", sentence)[0].rstrip(" :,;")
    if len(sentence) < 12 or " " not in sentence:
        return ""
    if len(sentence) > _SUMMARY_LIMIT:
        sentence = sentence[:_SUMMARY_LIMIT].rsplit(" ", 1)[0] + "…"
    return sentence if sentence.endswith((".", "…")) else sentence + "."


@cache
def _arguments(text: str) -> dict[str, str]:
    """Argument name → first sentence of what the docstring's list of arguments says."""
    meanings: dict[str, str] = {}
    section = re.search(r"^ *(?:Args|Arguments|Keyword args|Keyword arguments|Parameters)\s*:?\s*$", text, re.M | re.I)
    if section is None:
        return meanings
    item = re.compile(
        r"^([ \t]+)(\*{0,2}\w+(?:\s*,\s*\w+)*)\s*(?:\(([^\n]*?)\))?\s*(?::|–|--)\s*(.*?)(?=^[ \t]*\n|^\1\S|\Z)", re.M | re.S
    )
    for match in item.finditer(text[section.end() :] + "\n"):
        said = _first_sentence_of_argument(_plain(match[4]))
        for name in re.split(r"\s*,\s*", match[2]):
            meanings.setdefault(name.lstrip("*"), said)
    return meanings


def _first_sentence_of_argument(text: str) -> str:
    text = re.sub(r"\s*Default:?.*$", "", text, flags=re.I)
    sentence = ""
    for piece in re.split(r"(?<=\.)\s+", text):
        sentence = f"{sentence} {piece}".strip()
        if not _ABBREVIATIONS.search(sentence):
            break
    sentence = sentence.rstrip(" .,;:")
    if len(sentence) > _MEANING_LIMIT:
        sentence = sentence[:_MEANING_LIMIT].rsplit(" ", 1)[0] + "…"
    return sentence[:1].upper() + sentence[1:] if sentence else ""
