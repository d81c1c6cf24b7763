"""Which names a body binds itself: in Python such a name of a function is its own everywhere in it, bound yet or not."""

from __future__ import annotations

import ast
from collections.abc import Iterable

_INNER = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)  # their own names stay inside; those of `:=` do not


def bound_names(nodes: Iterable[ast.AST]) -> frozenset[str]:
    """The names that statements bind where they stand, those of functions and classes within them aside."""
    bound, shared = set[str](), set[str]()
    stack = [(node, False) for node in nodes]
    while stack:
        node, inner = stack.pop()
        match node:
            case ast.Name(ctx=ast.Store() | ast.Del()) if not inner:
                bound.add(node.id)
            case ast.NamedExpr():
                bound.add(node.target.id)
                stack.append((node.value, inner))
                continue
            case ast.FunctionDef() | ast.ClassDef():
                bound.add(node.name)
                continue
            case ast.Lambda():
                continue
            case ast.Global() | ast.Nonlocal():
                shared.update(node.names)
            case ast.alias():
                bound.add((node.asname or node.name).partition(".")[0])
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                bound.add(name)
            case ast.MatchMapping(rest=str(name)):
                bound.add(name)
        stack += [(child, inner or isinstance(node, _INNER)) for child in ast.iter_child_nodes(node)]
    return frozenset(bound - shared)
