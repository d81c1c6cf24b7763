"""Dataclasses of a program: their fields are filled as Python fills them."""

from __future__ import annotations

import pytest

from app.errors import PullbackError
from tests.program.building import answer, tensors

BEGIN = "from dataclasses import dataclass, field\nfrom typing import ClassVar\n"


@pytest.mark.parametrize(
    ("options", "fields", "call", "expected"),
    [
        ("", "scale: ClassVar[float] = 2.0\n    k: float = 1.0", "K(5.0)", 2.0 * 5.0),
        ("", "scale: float = field(init=False, default=3.0)\n    k: float = 1.0", "K(5.0)", 15.0),
        ("", "scale: float = field(kw_only=True, default=3.0)\n    k: float = 1.0", "K(5.0)", 15.0),
        ("", "scale: float = field(kw_only=True)\n    k: float = 1.0", "K(5.0, scale=7.0)", 35.0),
        ("(kw_only=True)", "scale: float = 3.0\n    k: float = 1.0", "K(k=5.0)", 15.0),
        ("(frozen=True)", "scale: float = 3.0\n    k: float = 1.0", "K(4.0, 5.0)", 20.0),
    ],
)
def test_fields_are_filled_as_python_fills_them(options: str, fields: str, call: str, expected: float) -> None:
    program = f"{BEGIN}@dataclass{options}\nclass K:\n    {fields}\na = {call}\nreturn x * a.scale * a.k"
    (value,) = answer(program, tensors(x=1.0)).values()
    assert value.item() == expected


@pytest.mark.parametrize(
    ("options", "field", "lines"),
    [
        ("(frozen=True)", "k: float = 1.0", "a = K()\na.k = 5.0"),
        ("(frozen=True)", "k: float = 1.0", "a = K()\nsetattr(a, 'k', 5.0)"),
        ("(kw_only=True)", "k: float = 1.0", "a = K(5.0)"),
        ("", "k: float = field(init=False, default=1.0)", "a = K(k=5.0)"),
        ("", "k: float = field(kw_only=True)", "a = K()"),
    ],
)
def test_what_python_refuses_of_a_dataclass_is_refused(options: str, field: str, lines: str) -> None:
    with pytest.raises(PullbackError, match=r"Line [67]"):
        answer(f"{BEGIN}@dataclass{options}\nclass K:\n    {field}\n{lines}\nreturn x * a.k", tensors(x=1.0))


CACHED = """\
import functools
from functools import lru_cache
@DECORATOR
def f(k):
    return torch.randn(k)
return (f(3) - f(3)).abs().sum() + x
"""


@pytest.mark.parametrize("decorator", ["lru_cache", "lru_cache(maxsize=None)", "functools.cache", "functools.lru_cache()"])
def test_a_cached_function_gives_what_it_gave(decorator: str) -> None:
    (value,) = answer(CACHED.replace("DECORATOR", decorator), tensors(x=1.0)).values()
    assert value.item() == 1.0


ABSTRACT = """\
import abc
from abc import ABC, abstractmethod
class Base(BASES):
    @abstractmethod
    def k(self): ...
    @property
    @abc.abstractmethod
    def n(self): ...
class Half(Base):
    def k(self): return 2.0
class Whole(Half):
    n = 3.0
return x * CALL
"""


@pytest.mark.parametrize("bases", ["ABC", "nn.Module, abc.ABC", "metaclass=abc.ABCMeta", "typing.Protocol"])
@pytest.mark.parametrize("name", ["Base", "Half"])
def test_an_abstract_class_has_no_objects(bases: str, name: str) -> None:
    with pytest.raises(PullbackError, match=r"Line 13.*abstract.*`n`"):
        answer(ABSTRACT.replace("BASES", bases).replace("CALL", f"{name}().k()"), tensors(x=1.0))


@pytest.mark.parametrize(("bases", "call"), [("ABC", "Whole().k() * Whole().n"), ("nn.Module", "Half().k() * 3")])
def test_a_class_that_leaves_nothing_open_has_objects(bases: str, call: str) -> None:
    (value,) = answer(ABSTRACT.replace("BASES", bases).replace("CALL", call), tensors(x=1.0)).values()
    assert value.item() == 6.0


@pytest.mark.parametrize(
    "text",
    [
        "[1].update([2])",
        "a = x.detach().clone().requires_grad_(True)\na += 1",
        "a = x.detach().requires_grad_()\na[0] = 1",
        "class V:\n    def __lt__(self, other): return True\nV() <= V()",
    ],
)
def test_what_python_and_pytorch_refuse_is_refused(text: str) -> None:
    with pytest.raises(PullbackError, match=r"Line [1-3]"):
        answer(f"{text}\nreturn x * 2", tensors(x=[1.0, 2.0]))
