"""The repository's own knowledge: links lead somewhere, references name sections that exist, and the contract has what the source has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final, get_args

import pytest
import yaml

from app.errors import CODES
from app.protocols.native.query_body import FIELDS
from app.query import DTYPE_BYTES, WANTS, Format
from tests import room_map

ROOT: Final = Path(__file__).parent.parent
CONTRACT: Final = (ROOT / "docs" / "contract.md").read_text()
DOCUMENTS: Final = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(f"docs/{name}.md" for name in ("guide", "running", "architecture", "contract")),
)
SECTIONS: Final = {int(number): title for number, title in re.findall(r"^## (\d)\. (.+)$", CONTRACT, flags=re.MULTILINE)}


def _sources() -> list[Path]:
    return [path for folder in ("app", "tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]


def _section(number: int) -> str:
    return re.split(r"^## \d\. ", CONTRACT, flags=re.MULTILINE)[number]


def _headings(text: str) -> set[str]:
    """The anchors that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def _first_column(text: str) -> str:
    return "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", path.read_text()):
        page = path.parent / target if target else path
        assert page.exists(), target
        if heading and page.suffix == ".md":
            assert heading in _headings(page.read_text()), f"{target}#{heading}"


def test_paths_in_the_documents_exist() -> None:
    for document in ("CONTRIBUTING.md", "docs/architecture.md"):
        for name in re.findall(r"`((?:app|tests|docs)/[\w./]+)`", (ROOT / document).read_text()):
            # The folder that the worked example of a protocol makes (test_contributing.py does it as written).
            assert (ROOT / name).exists() or name.startswith("app/protocols/text/"), f"{document}: {name}"


def test_the_map_has_every_room_and_module() -> None:
    """`make map` writes it."""
    assert room_map.drawn() == room_map.rows()


def test_references_to_the_contract_lead_to_its_sections() -> None:
    followed = 0
    for path in _sources():
        for text in re.findall(r"docs/contract\.md,? \(?sections? ([\d to and]+)", path.read_text()):
            for number in re.findall(r"\d", text):
                assert int(number) in SECTIONS, f"{path}: section {number}"
                followed += 1
    assert followed > 10


def test_nothing_cites_a_contract_that_is_elsewhere() -> None:
    loose = re.compile(r"contract, section|sections? \d[^.]{0,12} of the contract")
    offenders = [
        str(p)
        for p in _sources()
        if p != Path(__file__) and loose.search(p.read_text().replace("docs/contract.md, section", ""))
    ]
    assert not offenders


def test_paths_in_docstrings_and_comments_exist() -> None:
    for path in _sources():
        for name in re.findall(r"(?<![\w/.])((?:app|tests|docs)/[\w/]+\.(?:py|json|md))\b", path.read_text()):
            assert (ROOT / name).exists(), f"{path}: {name}"


def test_the_contract_has_every_kind() -> None:
    assert set(re.findall(r"`(\w+)`", _first_column(_section(4)))) == set(WANTS)


def test_the_contract_has_every_field() -> None:
    assert set(re.findall(r"`(\w+)`", _first_column(_section(2)))) == set(FIELDS)


def test_the_contract_has_every_code() -> None:
    """Beside its status; a row of two has the codes of each on its side of the stroke."""
    rows = re.findall(r"^\| ([\d /]+) \| (.*) \|$", _section(6), flags=re.MULTILINE)
    pairs = [pair for statuses, words in rows for pair in zip(statuses.split(" / "), words.split(" / "), strict=True)]
    shown = {code: int(status) for status, words in pairs for code in re.findall(r"`([a-z_]+)`", words)}
    assert shown == {code: status for code, (status, _) in CODES.items()}


def test_the_contract_has_every_format_and_dtype() -> None:
    text = _section(2)
    assert all(f"`{name}`" in text for name in get_args(Format))
    assert all(re.search(rf"\b{name}\b", text) for name in DTYPE_BYTES)


def test_pre_commit_runs_the_linters_of_make_lint() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = (ROOT / "Makefile").read_text().split("\nlint:", 1)[1].split("\n\n", 1)[0]
    tools = re.findall(r"\$\(BIN\)/(\w+(?: check| format)?)", lint)
    assert [re.sub(r"^\.venv/bin/", "", hook["entry"]).removesuffix(" --force-exclude") for hook in hooks] == tools


def test_pre_commit_takes_its_configuration() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "pre-commit"), "validate-config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
