"""Whether a program is read alike for all shapes of its inputs: straight lines of operations, with nothing that asks for a size."""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import Final

# Of programs that come again and again: 0.3 MB of the median pasted one (246 bytes), 16 MB at most.
_CACHE_LENGTH: Final = 1024
# Operations of which a program's reading asks nothing but how many axes their tensors have. Others may be so too.
_OPERATIONS: Final = frozenset({
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "bmm", "celu", "clamp", "conv1d", "conv2d", "conv3d", "cos",
    "cosh", "cosine_similarity", "cross", "cross_entropy", "cumprod", "cumsum", "det", "diagonal", "digamma", "dist", "dot",
    "einsum", "elu", "erf", "erfc", "exp", "exp2", "expm1", "flatten", "gelu", "hardtanh", "heaviside", "huber_loss", "hypot",
    "inner", "inv", "kl_div", "l1_loss", "leaky_relu", "lerp", "lgamma", "linear", "log", "log10", "log1p", "log2",
    "log_softmax", "logaddexp", "logdet", "logsigmoid", "logsumexp", "matmul", "maximum", "mean", "minimum", "mish", "mm",
    "mse_loss", "mul", "mv", "nll_loss", "norm", "normalize", "outer", "prod", "reciprocal", "relu", "rsqrt", "selu",
    "sigmoid", "silu", "sin", "sinc", "sinh", "slogdet", "smooth_l1_loss", "softmax", "softmin", "softplus", "softsign",
    "solve", "sqrt", "square", "squeeze", "std", "sub", "t", "tan", "tanh", "tanhshrink", "trace", "transpose", "tril", "triu",
    "unsqueeze", "var", "where", "xlogy",
})  # fmt: skip
# Python has functions of these names too, so they are operations only after a dot.
_AFTER_A_DOT: Final = frozenset({"abs", "max", "min", "pow", "round", "sum"})
_ATTRIBUTES: Final = frozenset({"T", "mT"})
_PACKAGES: Final = frozenset({"nn", "functional", "linalg", "special"})
_PLAIN: Final = (
    ast.Module, ast.Assign, ast.Return, ast.Expr, ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Tuple, ast.List, ast.Subscript,
    ast.Slice, ast.keyword, ast.expr_context, ast.operator, ast.USub, ast.UAdd,
    ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq,
)  # fmt: skip


@lru_cache(maxsize=_CACHE_LENGTH)
def is_straight(text: str) -> bool:
    """Whether shapes decide nothing of what `text` is read as; False where that is not plain to see."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    assigned = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    return all(_is_plain(node, assigned, id(node) in called) for node in nodes)


def _is_plain(node: ast.AST, assigned: set[str], is_called: bool) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name | ast.Attribute)
    if is_called and isinstance(node, ast.Name):
        return node.id in _OPERATIONS and node.id not in assigned
    if isinstance(node, ast.Attribute):
        return node.attr in (_OPERATIONS | _AFTER_A_DOT if is_called else _ATTRIBUTES | _PACKAGES)
    if isinstance(node, ast.Compare):  # several of them read truth values
        return len(node.ops) == 1
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name) for target in node.targets)
    return isinstance(node, _PLAIN)
