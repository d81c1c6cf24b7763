"""What a program defines: names that it imports, functions, classes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from app.program.classes import contexts
from app.program.interpreting.expressions import Reader
from app.program.library import vocabulary
from app.program.packages import imports
from app.program.reading.source import Refusal
from app.program.semantics import static
from app.program.semantics.graph_values import Value
from app.program.semantics.scopes import Scope
from app.program.semantics.static import named
from app.program.semantics.values import AUTO, PLAIN_ENUMS, ClassValue, FunctionValue, Instance

Left = Literal["break", "continue"]
# What a decorator makes of a function of a class.
_ROLES: Final = {
    "staticmethod": "static", "classmethod": "class", "property": "property", "cached_property": "cached",
    "functools.cached_property": "cached", "contextlib.contextmanager": "context", "contextmanager": "context",
}  # fmt: skip
_CACHES: Final = ("lru_cache", "functools.lru_cache", "functools.cache")
# What `ClassValue.builtin` says of an `Enum`.
ENUMS: Final = ("Enum", *PLAIN_ENUMS)
_NAMED_TUPLES: Final = ("NamedTuple", "typing.NamedTuple")


@dataclass(frozen=True, slots=True)
class Returned:
    """What `return`, or a last bare expression, gave.

    Attributes:
        value: it.
        node: its expression, which names the outputs of a tuple.
    """

    value: Value
    node: ast.expr


class Definitions:
    """Binds what statements define, with one Reader."""

    # Runs the statements of a body; set by the one who knows all of them.
    block: Callable[[Sequence[ast.stmt]], Returned | Left | None]

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.source = reader.source

    def _import(self, statement: ast.Import | ast.ImportFrom) -> None:
        reader = self.reader
        for name, path in vocabulary.imported(statement).items():
            reader.scope.bind(name, imports.bound(path))
        if isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names):
            reader.stars.append(statement.module or "")
        reader.leave_out(statement, self.source.excerpt(statement), None)

    def _define(self, statement: ast.FunctionDef) -> None:
        reader = self.reader
        grad: bool | None = None
        around: list[ast.expr] = []
        for decorator in statement.decorator_list:
            if reader.is_silent(decorator):  # `@pytest.mark.parametrize(…)`
                continue
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            path = reader.dotted(called) or ""
            args = tuple(reader.value(a) for a in decorator.args) if path and isinstance(decorator, ast.Call) else ()
            mode = contexts.grad_mode(path, args)
            if mode is None and not vocabulary.is_inert_decorator(path):
                around.append(decorator)
            grad = mode if mode is not None else grad
        words = [reader.dotted(decorator) or "" for decorator in statement.decorator_list]
        role = next((_ROLES[word] for word in words if word in _ROLES), "method")
        abstract = any(word.rpartition(".")[2] == "abstractmethod" for word in words)
        function = replace(reader.function(statement, statement.name, grad, role), abstract=abstract)
        if any(word in _CACHES for word in map(self._path, statement.decorator_list)):
            object.__setattr__(function, "answers", {})
        for decorator in reversed(around):
            if isinstance(decorator, ast.Attribute) and decorator.attr == "setter":
                reader.scope.bind(f"{statement.name}.setter", function)
                return
            function = self._decorated(decorator, function)
        reader.scope.bind(statement.name, function)
        if not reader.stack:
            reader.defined.append((statement.name, function))

    def _path(self, decorator: ast.expr) -> str | None:
        return self.reader.dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)

    def _decorated(self, decorator: ast.expr, function: Value) -> Value:
        """What a decorator, which is a function of the program or one of PyTorch's (`@torch.vmap`), makes of a function or class."""
        reader = self.reader
        path = reader.dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)
        if path is not None and not vocabulary.is_decorator(path):
            refusal = Refusal(
                f"The decorator `@{path}` is not in the language.",
                "Leave it out, or paste the lines of the function that it is.",
            )
            raise self.source.refused(refusal, decorator)
        value = reader.value(decorator)
        return reader.located(decorator, lambda: reader.invoke(decorator, value, (function,), {}))

    def _fields(self, statement: ast.ClassDef, bases: Sequence[ClassValue]) -> tuple[str, ...] | None:
        """The fields of a dataclass, those of the classes above it first."""
        words = [self.reader.dotted(d.func if isinstance(d, ast.Call) else d) or "" for d in statement.decorator_list]
        words += [self.reader.dotted(base) or "" for base in statement.bases]
        above = [name for base in bases for name in base.fields or ()]
        if not above and not any(word.rpartition(".")[2] in ("dataclass", "NamedTuple") for word in words):
            return None
        own = [ast.unparse(s.target) for s in annotated(statement) if "ClassVar" not in ast.unparse(s.annotation)]
        return tuple(dict.fromkeys([*above, *own]))

    def _limit(self, statement: ast.ClassDef, kind: ClassValue) -> None:
        """What `field(init=False)`, `kw_only=True` and `frozen=True` say of a dataclass and its fields."""
        for base in kind.bases:
            kind.limited.update(base.limited)
        decorators = [d for d in statement.decorator_list if isinstance(d, ast.Call)]
        whole = {k.arg: ast.unparse(k.value) for d in decorators for k in d.keywords}
        object.__setattr__(kind, "ordered", whole.get("order") == "True")
        object.__setattr__(kind, "frozen", whole.get("frozen") == "True" or any(base.frozen for base in kind.bases))
        for line in annotated(statement):
            name = ast.unparse(line.target)
            if ast.unparse(line.annotation).rpartition(".")[2] == "KW_ONLY" or "InitVar" in ast.unparse(line.annotation):
                raise self.source.refused(
                    Refusal("`KW_ONLY` and `InitVar` are not in the language.", "Write `field(kw_only=True)`."), line
                )
            is_call = isinstance(line.value, ast.Call) and (self.reader.dotted(line.value.func) or "").endswith("field")
            options = {k.arg: ast.unparse(k.value) for k in line.value.keywords} if is_call else {}  # type: ignore[union-attr]
            kind.limited.pop(name, None)
            if options.get("init") == "False":
                kind.limited[name] = "init"
            elif name in (kind.fields or ()) and options.get("kw_only", whole.get("kw_only")) == "True":
                kind.limited[name] = "kw_only"
                if is_call and not {"default", "default_factory"} & options.keys():
                    kind.own.pop(name, None)

    def _class(self, statement: ast.ClassDef) -> None:
        reader = self.reader
        if any(keyword.arg != "metaclass" or not is_abstract(reader.dotted(keyword.value)) for keyword in statement.keywords):
            raise self.source.refused(
                Refusal("A class with a metaclass or keywords is not in the language.", "Leave them out."), statement
            )
        paths = [reader.dotted(d.func if isinstance(d, ast.Call) else d) or "" for d in statement.decorator_list]
        around = [d for d, path in zip(statement.decorator_list, paths, strict=True) if not vocabulary.is_inert_decorator(path)]
        bases, module, custom, builtin = self._bases(statement)
        scope = Scope(reader.scope, is_class=True)
        with reader.inside(scope):
            reader.stack.append(None)
            try:
                self.block(statement.body)
            finally:
                reader.stack.pop()
        kind = ClassValue(
            statement.name,
            tuple(bases),
            module or any(base.module for base in bases),
            scope.own,
            self._fields(statement, bases),
            custom or any(base.custom for base in bases),
            is_tuple=any(reader.dotted(base) in _NAMED_TUPLES for base in statement.bases),
            builtin=builtin or next((base.builtin for base in bases if base.builtin), ""),
            ordered=any(path.rpartition(".")[2] == "total_ordering" for path in paths),
            asks=_asked(reader, statement, scope.own),
            abstract=bool(statement.keywords) or any(base.abstract for base in bases) or _extends_abc(reader, statement),
        )
        if kind.fields is not None:
            self._limit(statement, kind)
        if kind.builtin in ENUMS:
            object.__setattr__(kind, "members", enumerated(kind, reader.trace.budget.spend))
        value: Value = kind
        for decorator in reversed(around):
            value = self._decorated(decorator, value)
        reader.scope.bind(statement.name, value)
        if not reader.stack:
            reader.defined.append((statement.name, value))

    def _bases(self, statement: ast.ClassDef) -> tuple[list[ClassValue], bool, bool, str]:
        """The classes of the program that a class extends; whether it is a module, and a `Function`; what else it extends."""
        reader = self.reader
        bases: list[ClassValue] = []
        module = custom = False
        builtin = ""
        for base in statement.bases:
            bare = base.value if isinstance(base, ast.Subscript) else base  # `Generic[T]`
            path = reader.dotted(bare)
            if path in _NAMED_TUPLES:
                continue
            if path is not None:
                module = module or vocabulary.is_module_base(path) or vocabulary.extended(path)[1]
                custom = custom or vocabulary.is_custom_base(path)
                known, _ = vocabulary.extended(path)
                if known is None:
                    raise self.source.refused(vocabulary.base_refused(path), base)
                if known:
                    builtin = "int or str Enum" if builtin and "Enum" in (known, builtin) else builtin or known
                continue
            if reader.is_silent(bare):  # `unittest.TestCase`
                continue
            value = reader.value(bare)
            if not isinstance(value, ClassValue):
                raise self.source.refused(Refusal(f"{named(value).capitalize()} is no class to extend."), base)
            bases.append(value)
        return bases, module, custom, builtin


def annotated(statement: ast.ClassDef) -> list[ast.AnnAssign]:
    """The lines `name: type = default` of a class."""
    return [line for line in statement.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]


def is_abstract(path: str | None) -> bool:
    """Whether a metaclass is the one of abstract classes."""
    return path is not None and path.rpartition(".")[2] == "ABCMeta"


def _extends_abc(reader: Reader, statement: ast.ClassDef) -> bool:
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in statement.bases]
    return any((reader.dotted(base) or "").rpartition(".")[2] in ("ABC", "Protocol") for base in bases)


def _asked(reader: Reader, statement: ast.ClassDef, own: Mapping[str, Value]) -> tuple[str, ...] | None:
    """What a class that extends `Protocol` itself asks of an object, by names."""
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in statement.bases]
    if not any((reader.dotted(base) or "").rpartition(".")[2] == "Protocol" for base in bases):
        return None
    return *own, *(ast.unparse(line.target) for line in annotated(statement))


def enumerated(kind: ClassValue, spend: Callable[[int], None]) -> dict[str, Instance]:
    """The members of an `Enum`, which take the places of their values among the class's attributes."""
    members: dict[str, Instance] = {}
    count = 0
    for name, value in kind.own.items():
        if isinstance(value, FunctionValue) or name.startswith("_"):
            continue
        if value is AUTO:
            value = name.lower() if kind.builtin == "StrEnum" else count + 1
        if isinstance(value, int):
            count = value
        static.counted(value, spend)
        known = next(
            (
                member
                for member in members.values()
                if type(value) is type(member.own["value"]) and member.own["value"] == value
            ),
            None,
        )
        members[name] = known or Instance(kind, {"name": name, "value": value})
    kind.own.update(members)
    return members
