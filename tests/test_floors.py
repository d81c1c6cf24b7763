"""Imports go down only: reads every import in `app` and names the offender; what else the style of the source promises."""

from __future__ import annotations

import ast
import copy
import inspect
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import uvicorn.server
from uvicorn.protocols.http import httptools_impl

ROOT: Final = Path(__file__).parent.parent
APP: Final = ROOT / "app"

# Room → the rooms that it may import besides itself. The order is from top to bottom; `BOTTOM` may be imported by all.
BOTTOM: Final = frozenset({"app", "bounded_cache", "errors", "limits", "query", "settings"})
MAY_IMPORT: Final[dict[str, frozenset[str]]] = {
    "main": frozenset({"front", "group", "pool", "machine"}),
    "cli": frozenset({"main", "front", "pool", "catalogue", "printing", "query_files"}),
    "query_files": frozenset(),
    "front": frozenset({"group", "pool", "program", "catalogue", "protocols", "machine"}),
    "group": frozenset({"pool"}),
    "pool": frozenset({"road", "machine"}),
    "machine": frozenset(),
    "road": frozenset({"engine", "program", "catalogue", "protocols"}),
    "engine": frozenset({"program", "catalogue"}),
    "program": frozenset({"catalogue"}),
    "catalogue": frozenset(),
    "protocols": frozenset({"catalogue"}),
    "printing": frozenset({"printing_reports"}),
    "printing_reports": frozenset(),
    "ready": frozenset(),
    **dict.fromkeys(BOTTOM, frozenset()),
}
# The same for the rooms within the front; what stands beside them, the application and the server, may import them all.
FRONT_MAY_IMPORT: Final[dict[str, frozenset[str]]] = {
    "http": frozenset(),
    "observability": frozenset({"http"}),
    "access": frozenset({"http", "observability"}),
    "endpoints": frozenset({"http", "observability"}),
    "openapi": frozenset({"http", "access"}),
    "pages": frozenset(),
}
# uvicorn's internals are no public interface: one module builds on them.
UVICORN_MODULE: Final = "app.front.http.uvicorn_base"
# What the classes that descend from uvicorn's read of them, most of it asyncio's and ASGI's words.
LENT_BY_UVICORN: Final = frozenset(
    {"body", "client", "cycle", "expect_100_continue", "flow", "headers", "loop", "parser", "response_complete", "response_started",
     "scope", "send", "server", "tasks", "transport"} | {"connections", "default_headers", "receive"}
)  # fmt: skip
# Room or module of the engine → what it may import besides itself; `ENGINE_BOTTOM` may be imported by all of them.
ENGINE_BOTTOM: Final = frozenset({"errors", "notes", "tensors"})
ENGINE_MAY_IMPORT: Final[dict[str, frozenset[str]]] = {
    "engine": frozenset({"autodiff", "batching", "cuda", "kinds", "nonfinite", "computation", "planning", "recipes", "zeros"}),
    "cuda": frozenset({"joint", "planning", "recipes"}),
    "recipes": frozenset({"adjoint", "autodiff", "joint", "kinds", "planning", "zeros"}),
    "joint": frozenset({"autodiff", "planning", "stepwise"}),
    "batching": frozenset({"adjoint", "confirmation", "kinds", "per_sample", "computation", "autodiff"}),
    "confirmation": frozenset({"per_sample", "computation", "autodiff"}),
    "kinds": frozenset(
        {"adjoint", "confirmation", "per_sample", "computation", "joint", "check", "explain", "precision", "autodiff"}
        | {"planning"}
    ),
    "adjoint": frozenset({"autodiff", "computation", "precision", "stepwise"}),
    "nonfinite": frozenset({"computation", "stepwise"}),
    "zeros": frozenset({"batching", "computation", "kinds", "planning", "precision", "sparsity", "stepwise"}),
    "per_sample": frozenset({"computation", "autodiff"}),
    "computation": frozenset({"autodiff", "planning", "stepwise"}),
    "check": frozenset({"explain", "precision", "stepwise"}),
    "precision": frozenset({"explain", "stepwise"}),
    "explain": frozenset({"stepwise"}),
    "stepwise": frozenset(),
    "autodiff": frozenset({"planning", "sparsity"}),
    "sparsity": frozenset(),
    "planning": frozenset({"sparsity"}),
    **dict.fromkeys(ENGINE_BOTTOM, frozenset()),
}
# Only the children of the pool know the road; the front's side of it must not.
ROAD_IN_POOL: Final = frozenset({"app.pool.worker", "app.pool.forkserver"})

# Who may import torch, anywhere in the file; and who only inside a function, because the front imports the module.
TORCH_ROOMS: Final = frozenset({"engine", "program", "road"})
TORCH_MODULES: Final = frozenset(
    {"app.catalogue.better_rules", "app.catalogue.call", "app.catalogue.operator_mode"}
    | {
        f"app.catalogue.better.{name}"
        for name in (
            "aligned_vectors",
            "bessel",
            "largest_distances",
            "mixed_powers",
            "near_zero",
            "overwriting",
            "running",
            "running_products",
            "running_sums",
            "ties",
            "tracked",
        )
    }
    | {f"app.catalogue.kernels.{name}" for name in ("checks", "cuda_checks", "guard", "recurrent")}
)
TORCH_LAZY: Final = frozenset({"app.pool.worker", "app.pool.forkserver"})

# What a codec could do I/O with.
IO_MODULES: Final = frozenset(
    {"aiohttp", "asyncio", "fcntl", "http", "httpx", "io", "mmap", "multiprocessing", "os", "pathlib", "requests", "select",
     "selectors", "shutil", "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "torch", "urllib"}
)  # fmt: skip
SAFE_FROM_IO: Final = frozenset({"io.BytesIO"})

FORBIDDEN_MODULES: Final = frozenset({"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle"})
FORBIDDEN_CALLS: Final = frozenset({"eval", "exec", "compile", "__import__", "open_code"})
FORBIDDEN_ATTRIBUTES: Final = frozenset({"torch.load", "torch.export.load", "torch.jit.load", "numpy.load", "np.load"})

LENGTH_LIMIT: Final = 400
# File → why it is longer.
LONG_FILES: Final[dict[str, str]] = {}


ROOM_LIMIT: Final = 12
FUNCTION_LIMIT: Final = 50
TWIN_LIMIT: Final = 60  # nodes of a function's tree, some five lines: shorter ones are alike by chance
# File name → the rooms that tell it apart.
REPEATED: Final[dict[str, list[str]]] = {
    "__main__.py": ["app/catalogue/introspect", "app/front/openapi"],
    "endpoints.py": ["app/protocols/native", "app/protocols/oip", "app/protocols/tesseract", "app/protocols/umbridge"],
    "errors.py": ["app", "app/engine", "app/program"],
    "report.py": ["app/engine/check", "app/engine/explain", "app/engine/precision"],
    "trace.py": ["app/engine/stepwise", "app/program/semantics"],
}


@dataclass(frozen=True, slots=True)
class Import:
    """`module` as imported; `name` is what is taken from it; `lazy`: inside a function; `typing`: under TYPE_CHECKING."""

    module: str
    name: str
    line: int
    lazy: bool
    typing: bool


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else "app"


@cache
def modules() -> dict[str, Module]:
    modules_by_name = {}
    for path in sorted(APP.rglob("*.py")):
        relative = path.relative_to(ROOT).with_suffix("")
        if "functions" in relative.parts[:-1] and not (path.parent / "__init__.py").exists():
            continue  # programs in the query language, not Python
        parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
        text = path.read_text()
        modules_by_name[".".join(parts)] = Module(".".join(parts), path, ast.parse(text), text.count("\n"))
    return modules_by_name


def _is_type_checking(node: ast.If) -> bool:
    return ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def _walk(node: ast.AST, lazy: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, "", child.lineno, lazy, typing)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                yield Import("." * child.level + (child.module or ""), alias.name, child.lineno, lazy, typing)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            guarded = isinstance(child, ast.If) and _is_type_checking(child)
            yield from _walk(child, lazy or inside, typing or guarded)


def imports(module: Module) -> list[Import]:
    return list(_walk(module.tree, lazy=False, typing=False))


def _target(imported: Import) -> str | None:
    """The module of ours that an import reaches, or None."""
    if imported.module.split(".")[0] != "app":
        return None
    whole = f"{imported.module}.{imported.name}" if imported.name else imported.module
    return whole if whole in modules() else imported.module


def _where(module: Module, line: int) -> str:
    return f"{module.path.relative_to(ROOT)}:{line}"


def test_every_room_is_on_a_floor() -> None:
    assert {module.room for module in modules().values()} <= set(MAY_IMPORT)


def test_imports_go_down_only() -> None:
    offenders = []
    for module in modules().values():
        for imported in imports(module):
            target = _target(imported)
            if imported.module.startswith("."):
                offenders.append(f"{_where(module, imported.line)} imports relatively; write the whole name")
            if target is None:
                continue
            room = target.split(".")[1] if "." in target else "app"
            if room != module.room and room not in BOTTOM | MAY_IMPORT[module.room]:
                offenders.append(f"{_where(module, imported.line)}: {module.room} may not import {target}")
            if room == "road" and module.room == "pool" and module.name not in ROAD_IN_POOL:
                offenders.append(f"{_where(module, imported.line)}: only {sorted(ROAD_IN_POOL)} may import the road")
    assert not offenders, "\n".join(offenders)


def test_rooms_of_the_front_import_down_only() -> None:
    offenders = []
    for module in modules().values():
        inner = module.name.split(".")[2:]
        if module.room != "front" or len(inner) < 2:
            continue
        for imported in imports(module):
            target = (_target(imported) or "").split(".")
            if target[:2] == ["app", "front"] and (len(target) < 4 or target[2] not in {inner[0]} | FRONT_MAY_IMPORT[inner[0]]):
                offenders.append(f"{_where(module, imported.line)}: {inner[0]} may not import {'.'.join(target)}")
    assert not offenders, "\n".join(offenders)


def test_one_module_imports_uvicorn() -> None:
    offenders = [
        f"{_where(module, imported.line)} imports {imported.module}"
        for module in modules().values()
        for imported in imports(module)
        if imported.module.split(".")[0] in {"uvicorn", "httptools"} and module.name != UVICORN_MODULE
    ]
    assert not offenders, "\n".join(offenders)


def _attributes(tree: ast.AST, of: str | None = None) -> set[str]:
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if of is None or (isinstance(node.value, ast.Name) and node.value.id == of)}


def test_what_is_built_on_uvicorn_uses_only_what_it_is_lent() -> None:
    """Attributes of uvicorn's classes in the modules whose classes descend from them."""
    own = {
        name for file in (httptools_impl, uvicorn.server) for name in _attributes(ast.parse(inspect.getsource(file)), "self")
    }
    for name in ("app.front.http.connection", "app.front.http.connection_wire", "app.front.server", "app.front.member_server"):
        used = _attributes(modules()[name].tree) & own
        assert used <= LENT_BY_UVICORN, (
            f"{name} uses {sorted(used - LENT_BY_UVICORN)}: give it another name in {UVICORN_MODULE}"
        )


def test_imports_go_down_inside_the_engine() -> None:
    """Circles between its rooms are ruled out with it, typing imports included."""
    offenders = []
    for module in modules().values():
        parts = module.name.split(".")
        if parts[:2] != ["app", "engine"] or len(parts) < 3:
            continue
        for imported in imports(module):
            target = (_target(imported) or "").split(".")
            if target[:2] != ["app", "engine"] or len(target) < 3 or target[2] == parts[2]:
                continue
            if target[2] not in ENGINE_BOTTOM | ENGINE_MAY_IMPORT[parts[2]] or parts[2] in ENGINE_BOTTOM - {"errors"}:
                offenders.append(f"{_where(module, imported.line)}: {parts[2]} may not import {'.'.join(target)}")
    assert not offenders, "\n".join(offenders)


def test_the_bottom_stands_on_nothing() -> None:
    offenders = [
        f"{_where(module, imported.line)}: {imported.module}"
        for module in modules().values()
        if module.room in BOTTOM
        for imported in imports(module)
        if imported.module.split(".")[0] == "app" and imported.module.split(".")[-1] not in BOTTOM
    ]
    assert not offenders, "\n".join(offenders)


def test_torch_is_imported_only_where_it_may_be() -> None:
    offenders = []
    for module in modules().values():
        for imported in imports(module):
            if imported.module.split(".")[0] not in {"torch", "torchgen", "functorch"} or imported.typing:
                continue
            allowed = module.room in TORCH_ROOMS or module.name in TORCH_MODULES or "introspect" in module.name
            if not allowed and not (module.name in TORCH_LAZY and imported.lazy):
                offenders.append(f"{_where(module, imported.line)} imports {imported.module}")
    assert not offenders, "\n".join(offenders)


@pytest.mark.parametrize("name", ["app.main", "app.cli", "app.front.openapi", "app.catalogue.read", "app.pool.worker"])
def test_import_does_not_bring_torch(name: str) -> None:
    program = f"import sys, {name}; print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'torchgen')))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]", f"import {name} brings {done.stdout[:200]}"


def test_protocols_do_no_io() -> None:
    offenders = []
    for module in modules().values():
        if module.room != "protocols":
            continue
        for imported in imports(module):
            whole = f"{imported.module}.{imported.name}" if imported.name else imported.module
            if imported.module.split(".")[0] in IO_MODULES and whole not in SAFE_FROM_IO:
                offenders.append(f"{_where(module, imported.line)} imports {whole}")
        offenders += [
            f"{_where(module, node.lineno)} calls {node.func.id}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"open", "print", "input"}
        ]
    assert not offenders, "\n".join(offenders)


def test_nothing_can_run_what_a_client_sends() -> None:
    offenders = []
    for module in modules().values():
        offenders += [
            f"{_where(module, imported.line)} imports {imported.module}"
            for imported in imports(module)
            if imported.module.split(".")[0] in FORBIDDEN_MODULES or (imported.module == "torch" and imported.name == "load")
        ]
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                offenders.append(f"{_where(module, node.lineno)} calls {node.func.id}")
            if isinstance(node, ast.Attribute) and ast.unparse(node) in FORBIDDEN_ATTRIBUTES:
                offenders.append(f"{_where(module, node.lineno)} uses {ast.unparse(node)}")
    assert not offenders, "\n".join(offenders)


def test_no_import_cycles() -> None:
    """An import inside a function, or for the types alone, only hides a cycle, so it counts."""
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for module in modules().values():
        for imported in imports(module):
            target = _target(imported)
            if target is not None and target != module.name:
                graph[module.name].add(target)
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "cycle: " + " → ".join((*trail[trail.index(name) :], name))
        if name in done:
            return
        for target in sorted(graph.get(name, ())):
            visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def _rooms() -> dict[Path, list[str]]:
    rooms: dict[Path, list[str]] = {}
    for module in modules().values():
        if module.path.name != "__init__.py":
            rooms.setdefault(module.path.parent.relative_to(ROOT), []).append(module.path.name)
    return rooms


def test_a_room_has_at_most_a_dozen_files() -> None:
    crowded = {str(room): len(files) for room, files in _rooms().items() if len(files) > ROOM_LIMIT}
    assert not crowded, f"more than {ROOM_LIMIT} files: {crowded}"


def test_a_file_name_repeats_only_where_its_room_tells_it_apart() -> None:
    places: dict[str, list[str]] = {}
    for room, files in _rooms().items():
        for name in files:
            places.setdefault(name, []).append(str(room))
    repeated = {name: sorted(rooms) for name, rooms in places.items() if len(rooms) > 1}
    unknown = {name: rooms for name, rooms in repeated.items() if rooms != REPEATED.get(name)}
    assert not unknown, f"names that stand twice: {unknown}"


def test_functions_are_short() -> None:
    long = [
        f"{_where(module, node.lineno)}: `{node.name}` has {1 + (node.end_lineno or node.lineno) - node.lineno} lines"
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= FUNCTION_LIMIT
    ]
    assert not long, "\n".join(long)


def test_every_file_says_what_it_knows() -> None:
    silent = [str(m.path.relative_to(ROOT)) for m in modules().values() if m.lines and not ast.get_docstring(m.tree)]
    assert not silent, f"no docstring: {silent}"


def test_files_are_short() -> None:
    long = {str(m.path.relative_to(ROOT)): m.lines for m in modules().values() if m.lines > LENGTH_LIMIT}
    assert set(long) <= set(LONG_FILES), f"longer than {LENGTH_LIMIT} lines: {long}"


def _is_number(node: ast.expr | None) -> bool:
    """Whether an expression is made of numbers: `1 << 20`, `4 * MEBIBYTE`, `(2.0**-17, 2.0**-21)`."""
    if isinstance(node, ast.BinOp):
        return _is_number(node.left) or _is_number(node.right)
    if isinstance(node, ast.UnaryOp):
        return _is_number(node.operand)
    members = node.elts if isinstance(node, ast.Tuple) else node.args if isinstance(node, ast.Call) else []
    return all(map(_is_number, members)) if members else isinstance(node, ast.Constant) and type(node.value) in (int, float)


def unexplained(text: str) -> list[tuple[int, str]]:
    """Line and name of each constant number of a module without a comment on its line, or above the numbers that it stands among."""
    lines, silent = text.split("\n"), []
    above = False  # whether the numbers just above stand under a comment
    end = 0
    for node in ast.parse(text).body:
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(target, ast.Name | ast.Tuple) and _is_number(node.value):
            above = lines[node.lineno - 2].startswith("#") or (above and end == node.lineno - 1)
            name = ast.unparse(target)
            if name.isupper() and not above and "#" not in "".join(lines[node.lineno - 1 : node.end_lineno]):
                silent.append((node.lineno, name))
            end = node.end_lineno or 0
        else:
            above = False
    return silent


def test_constants_say_why() -> None:
    """Each number that decides something has its reason, source or measurement beside it, or above the group that it is in."""
    texts = {module: module.path.read_text() for module in modules().values()}
    silent = [f"{_where(module, line)}: {name}" for module, text in texts.items() for line, name in unexplained(text)]
    assert not silent, "\n".join(silent)


@pytest.mark.parametrize(
    "planted", ["A: Final = 3", "B = 1 << 4", "# why\nA = 1\n\nB = 2", "A = 1  # why\nB = 2", "A, B = 1, 2"]
)
def test_a_planted_constant_is_seen(planted: str) -> None:
    assert unexplained(planted)


def complexities(*arguments: str, text: str | None = None) -> str:
    """What ruff says of functions with more branches than pyproject.toml allows, those excused by a comment among them."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "C901", "--ignore-noqa", *arguments]
    return subprocess.run(command, input=text, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False).stdout


def test_functions_have_few_branches() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["mccabe"]["max-complexity"] <= 15
    assert complexities(".") == "All checks passed!\n"


def test_a_planted_function_of_many_branches_is_seen() -> None:
    branches = "".join(f"    if x == {k}:\n        return {k}\n" for k in range(15))
    assert "`f` is too complex (16 > 15)" in complexities("-", text=f"def f(x):  # noqa: C901\n{branches}    return x\n")


def _outline(nodes: list[ast.AST]) -> tuple[object, ...]:
    """What twins have in common and is quickly had: kinds of statements, and attributes where nothing within is left out by `_Anonymous`."""
    kinds = tuple(
        type(node)
        for node in nodes
        if isinstance(node, ast.stmt) and not isinstance(node, ast.Pass | ast.Expr)  # a docstring is an expression
    )
    is_flat = kinds.count(ast.FunctionDef) == 1 and ast.AsyncFunctionDef not in kinds
    body = nodes[0].body if is_flat and isinstance(nodes[0], ast.FunctionDef) else []
    return kinds, tuple(node.attr for line in body for node in ast.walk(line) if isinstance(node, ast.Attribute))


def twins(functions: Sequence[tuple[str, ast.AST]]) -> list[list[str]]:
    """The names of those that are alike; each is taken apart only where another has its outline: that takes a third of the time."""
    outlines: dict[tuple[object, ...], list[tuple[str, ast.AST]]] = {}
    for name, function in functions:
        nodes = list(ast.walk(function))
        if len(nodes) >= TWIN_LIMIT:
            outlines.setdefault(_outline(nodes), []).append((name, function))
    alike: dict[str, list[str]] = {}
    for group in outlines.values():
        for name, function in group if len(group) > 1 else ():
            alike.setdefault(ast.dump(_Anonymous().visit(copy.deepcopy(function))), []).append(name)
    return [names for names in alike.values() if len(names) > 1]


class _Anonymous(ast.NodeTransformer):
    """Takes from a function what is only a name: its own, those of its variables, annotations, its docstring."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}

    def _number(self, name: str) -> str:
        return self._numbers.setdefault(name, f"v{len(self._numbers)}")

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._number(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self._number(node.arg))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        body = node.body[1:] if ast.get_docstring(node) else node.body
        whole = ast.FunctionDef("f", node.args, body or [ast.Pass()], [], lineno=0)
        return self.generic_visit(whole)


def test_no_function_stands_twice() -> None:
    """Functions of some lines that differ in names alone."""
    functions = [
        (f"{_where(module, node.lineno)} {node.name}", node)
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef)
    ]
    assert not twins(functions)


def test_a_planted_twin_is_seen() -> None:
    text = inspect.getsource(twins)
    other = ast.parse(
        text.replace("twins", "others").replace("alike", "same").replace(inspect.getdoc(twins) or "", "Other words.")
    )
    assert len(twins([("one", ast.parse(text).body[0]), ("other", other.body[0])])) == 1
    assert not twins([("one", ast.parse(text).body[0]), ("other", ast.parse(text.replace("dump", "unparse")).body[0])])
