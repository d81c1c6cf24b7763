"""Tests mirror the house: the test of a module has its name and its room; tests of more than one module are listed with what they try."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

from tests.test_floors import APP

TESTS: Final = Path(__file__).parent

# Test → what it tries, where that is more than one module.
WHOLE: Final[dict[str, str]] = {
    "catalogue/test_catalogue.py": "the frozen file: what every entry must have",
    "catalogue/test_op_db.py": "binding and calling, on PyTorch's own samples",
    "catalogue/kernels/test_sizes.py": "sizes that kernels would never end with",
    "engine/test_complex.py": "complex functions, through every kind",
    "engine/test_properties.py": "what the kinds say of one another, for every operation",
    "front/test_generated_clients.py": "clients that are generated from the OpenAPI document",
    "front/test_memory.py": "memory of the front under load",
    "front/test_openapi.py": "the whole document",
    "front/test_pages.py": "every address that is no query",
    "front/test_swagger.py": "the documentation in a browser",
    "oracle/test_against_jax.py": "random programs against JAX",
    "oracle/test_random_structure.py": "random programs in every form, real and complex",
    "oracle/test_matrix_calculus.py": "closed forms of matrix calculus",
    "fuzz/test_api.py": "the HTTP interface, by its own schema",
    "fuzz/test_decoders.py": "every decoder, damaged byte by byte",
    "fuzz/test_http_bytes.py": "HTTP cut at every place",
    "gpu/test_answers.py": "answers of a GPU beside those of the CPU",
    "gpu/test_devices.py": "workers on one GPU and on several; memory and contexts that are lost",
    "gpu/test_inside.py": "what only a process on a GPU can see of itself",
    "memory_safety/test_memory_safety.py": "hostile queries of the whole catalogue, between guard pages",
    "oracle/test_explain_matrices.py": "explain at matrices of deficient rank, repeated and complex eigenvalues",
    "oracle/test_explain_pointwise.py": "explain beside mpmath, for the pointwise functions",
    "oracle/test_explain_cases.py": "explain on programs at their corners, each verdict decided by hand",
    "oracle/test_hand_sweep.py": "a sample of the derivations by hand, right and with mistakes",
    "oracle/test_explain_programs.py": "explain beside derivatives known on paper, for programs",
    "oracle/test_advice_sweep.py": "a sample of the sweep over what explain advises",
    "oracle/test_agreement_sweep.py": "a sample of the sweep of explain beside check",
    "oracle/test_explain_sweep.py": "a sample of the sweep over explain's reports",
    "oracle/test_lost_digits.py": "precision beside mpmath, for programs that lose digits",
    "oracle/test_check_sweep.py": "a sample of the sweep of check",
    "oracle/test_plan_sweep.py": "a sample of the sweep over plans",
    "oracle/test_closed_forms.py": "check on derivations in closed form, in every precision",
    "oracle/test_derivation_classes.py": "check on classes of derivations",
    "oracle/test_derivations.py": "check: derivations by hand",
    "oracle/test_why_none.py": "explain: what cuts the path in pasted programs",
    "oracle/test_batch_sweep.py": "a sample of the sweep of batches",
    "oracle/test_dtype_sweep.py": "a sample of the sweep of dtypes",
    "oracle/test_mistakes.py": "check: derivations with planted mistakes",
    "oracle/test_random_derivations.py": "check: derivations of random programs, right ones and planted mistakes",
    "pastes/test_pastes.py": "programs as people paste them",
    "pool/test_end.py": "how a server ends",
    "pool/test_faults.py": "injected faults of the system",
    "pool/test_isolation.py": "one client's load and another's",
    "pool/slabs/test_large_bodies.py": "bodies through slabs: full ones, dead workers, other workers' ones",
    "pool/test_memory.py": "memory of the whole service under large bodies",
    "program/test_advice.py": "the advice in refusals",
    "program/test_hostile.py": "hostile texts",
    "program/test_language.py": "the language, construct by construct",
    "program/test_leaves.py": "what a program prints of gradients, and where PyTorch keeps none",
    "program/test_places.py": "the lines of the text that reports and refusals speak of",
    "program/test_random_programs.py": "random programs against PyTorch itself",
    "program/test_speed.py": "the cost of reading and building",
    "protocols/native/test_sparse_answers.py": "sparse results through both formats",
    "protocols/oip/test_tritonclient.py": "Triton's client",
    "protocols/tesseract/test_cases.py": "Tesseract's own cases",
    "protocols/tesseract/test_clients.py": "Tesseract's clients",
    "protocols/test_cost.py": "what a protocol costs beside the native one",
    "protocols/test_every_operation.py": "every operation through every protocol",
    "protocols/test_examples.py": "the examples of docs/examples",
    "protocols/test_live_refusals.py": "a full, crashing or ending service as foreign clients see it",
    "protocols/test_killed_workers.py": "workers killed under clients of every protocol",
    "protocols/test_refusals.py": "refusals in the shape of every protocol",
    "protocols/test_same_bits.py": "the same bits through every protocol",
    "protocols/test_words.py": "foreign words stay in their rooms",
    "protocols/umbridge/test_conformity.py": "UM-Bridge's conformance tests",
    "test_contract.py": "what the contract says, as a client sees it",
    "test_contributing.py": "the worked examples of CONTRIBUTING.md",
    "test_documents.py": "the documents",
    "test_exposed.py": "a server that is reachable from outside",
    "test_floors.py": "imports, rooms, sizes",
    "test_habits.py": "README, packaging, image",
    "test_mirror.py": "the tests themselves",
    "test_names.py": "names",
    "test_op_db_over_http.py": "PyTorch's own samples over HTTP",
    "test_people.py": "queries as people send them",
    "test_check_over_http.py": "check as clients ask it, over HTTP",
    "test_questions.py": "people's questions with answers that do not come from PyTorch",
    "test_share.py": "what `make test` asks of many examples, and `make sweep`",
    "test_soak.py": "many clients for a while",
}


def _modules_of(room: str) -> set[str]:
    folder = APP / room if room else APP
    return {path.stem for path in folder.rglob("*.py")} | {path.name for path in folder.rglob("*") if path.is_dir()}


def test_a_test_has_the_name_of_a_module_in_its_room_or_is_listed() -> None:
    lost = []
    for path in sorted(TESTS.rglob("test_*.py")):
        relative = path.relative_to(TESTS)
        room = relative.parts[0] if len(relative.parts) > 1 else ""
        if str(relative) not in WHOLE and path.stem.removeprefix("test_") not in _modules_of(room):
            lost.append(str(relative))
    assert not lost, f"no module of that name in its room: {lost}"


def test_what_is_listed_exists() -> None:
    assert not [name for name in WHOLE if not (TESTS / name).exists()]


def test_no_test_takes_a_private_name_of_another() -> None:
    offenders = [
        f"{path.relative_to(TESTS)}:{node.lineno}: {alias.name}"
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests")
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert not offenders, "\n".join(offenders)
