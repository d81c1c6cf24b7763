"""Operations of the catalogue that JAX has as well, written with its functions: name → a function of the inputs and parameters by name."""

# ruff: noqa: A006, N803 (the arguments have the names that the operations give them)
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import jax.scipy.special as jss

Function = Callable[..., Any]

_UNARY: Final[dict[str, Function]] = {
    "abs": jnp.abs, "acos": jnp.arccos, "acosh": jnp.arccosh, "asin": jnp.arcsin, "asinh": jnp.arcsinh, "atan": jnp.arctan, "atanh": jnp.arctanh,
    "ceil": jnp.ceil, "cos": jnp.cos, "cosh": jnp.cosh, "deg2rad": jnp.deg2rad, "rad2deg": jnp.rad2deg, "digamma": jss.digamma, "erf": jss.erf,
    "erfc": jss.erfc, "erfinv": jss.erfinv, "exp": jnp.exp, "exp2": jnp.exp2, "expm1": jnp.expm1, "floor": jnp.floor, "i0": jss.i0,
    "lgamma": jss.gammaln, "log": jnp.log, "log10": jnp.log10, "log1p": jnp.log1p, "log2": jnp.log2, "neg": jnp.negative,
    "reciprocal": jnp.reciprocal, "rsqrt": jax.lax.rsqrt, "sigmoid": jax.nn.sigmoid, "sin": jnp.sin, "sinc": jnp.sinc, "sinh": jnp.sinh,
    "sqrt": jnp.sqrt, "square": jnp.square, "tan": jnp.tan, "tanh": jnp.tanh, "trunc": jnp.trunc, "conj": jnp.conj, "conj_physical": jnp.conj,
    "angle": jnp.angle, "real": jnp.real, "imag": jnp.imag, "positive": jnp.positive, "frac": lambda x: x - jnp.trunc(x),
    "special.i0e": jss.i0e, "special.i1": jss.i1, "special.i1e": jss.i1e, "special.ndtr": jss.ndtr, "special.ndtri": jss.ndtri,
    "special.log_ndtr": jss.log_ndtr, "special.entr": jss.entr, "nn.functional.relu": jax.nn.relu, "nn.functional.relu6": jax.nn.relu6,
    "nn.functional.silu": jax.nn.silu, "nn.functional.mish": jax.nn.mish, "nn.functional.softsign": jax.nn.soft_sign,
    "nn.functional.hardswish": jax.nn.hard_swish, "nn.functional.hardsigmoid": jax.nn.hard_sigmoid, "nn.functional.selu": jax.nn.selu,
    "nn.functional.logsigmoid": jax.nn.log_sigmoid, "nn.functional.tanhshrink": lambda x: x - jnp.tanh(x), "flatten": jnp.ravel,
    "ravel": jnp.ravel, "trace": jnp.trace, "t": jnp.transpose, "fliplr": jnp.fliplr, "flipud": jnp.flipud,
    "logdet": lambda x: jnp.log(jnp.linalg.det(x)),
    "matrix_exp": jsl.expm, "atleast_1d": jnp.atleast_1d, "T": jnp.transpose, "mT": lambda x: jnp.swapaxes(x, -1, -2),
    "mH": lambda x: jnp.swapaxes(x, -1, -2).conj(),
}  # fmt: skip
_PAIRS: Final[dict[str, Function]] = {
    "mul": jnp.multiply, "atan2": jnp.arctan2, "hypot": jnp.hypot, "maximum": jnp.maximum, "minimum": jnp.minimum, "fmax": jnp.fmax,
    "fmin": jnp.fmin, "fmod": jnp.fmod, "remainder": jnp.remainder, "logaddexp": jnp.logaddexp, "logaddexp2": jnp.logaddexp2, "xlogy": jss.xlogy,
    "special.xlog1py": jss.xlog1py, "matmul": jnp.matmul, "outer": jnp.outer, "kron": jnp.kron, "inner": jnp.inner, "copysign": jnp.copysign,
    "float_power": jnp.power, "igamma": jss.gammainc, "igammac": jss.gammaincc,
}  # fmt: skip


def _axes(dim: Any) -> Any:
    return tuple(dim) if isinstance(dim, list | tuple) else dim


def _spectral(name: str) -> Function:
    of = getattr(jnp.fft, name)
    if name.endswith(("2", "n")):
        axes = {"axes": (-2, -1)} if name.endswith("2") else {}
        return lambda input, s=None, dim=None, norm=None: of(
            input, s=s, norm=norm, **({"axes": tuple(dim)} if dim is not None else axes)
        )
    return lambda input, n=None, dim=-1, norm=None: of(input, n=n, axis=dim, norm=norm)


_NAMED: Final[dict[str, Function]] = {
    "add": lambda input, other, alpha=1: input + alpha * other,
    "sub": lambda input, other, alpha=1: input - alpha * other,
    "pow": lambda input, exponent: jnp.power(input, exponent),
    "clamp": lambda input, min=None, max=None: jnp.clip(input, min, max),
    "lerp": lambda input, end, weight: input + weight * (end - input),
    "addcmul": lambda input, tensor1, tensor2, value=1: input + value * tensor1 * tensor2,
    "addcdiv": lambda input, tensor1, tensor2, value=1: input + value * tensor1 / tensor2,
    "addmm": lambda input, mat1, mat2, beta=1, alpha=1: beta * input + alpha * (mat1 @ mat2),
    "addmv": lambda input, mat, vec, beta=1, alpha=1: beta * input + alpha * (mat @ vec),
    "addr": lambda input, vec1, vec2, beta=1, alpha=1: beta * input + alpha * jnp.outer(vec1, vec2),
    "baddbmm": lambda input, batch1, batch2, beta=1, alpha=1: beta * input + alpha * (batch1 @ batch2),
    "addbmm": lambda input, batch1, batch2, beta=1, alpha=1: beta * input + alpha * (batch1 @ batch2).sum(0),
    "bmm": lambda input, mat2: input @ mat2,
    "mm": lambda input, mat2: input @ mat2,
    "mv": lambda input, vec: input @ vec,
    "dot": lambda input, tensor: jnp.dot(input, tensor),
    "vdot": lambda input, other: jnp.vdot(input, other),
    "softmax": lambda input, dim: jax.nn.softmax(input, dim),
    "log_softmax": lambda input, dim: jax.nn.log_softmax(input, dim),
    "nn.functional.softmin": lambda input, dim: jax.nn.softmax(-input, dim),
    "logsumexp": lambda input, dim, keepdim=False: jss.logsumexp(input, axis=_axes(dim), keepdims=keepdim),
    "sum": lambda input, dim=None, keepdim=False: jnp.sum(input, axis=_axes(dim), keepdims=keepdim),
    "mean": lambda input, dim=None, keepdim=False: jnp.mean(input, axis=_axes(dim), keepdims=keepdim),
    "prod": lambda input, dim=None, keepdim=False: jnp.prod(input, axis=dim, keepdims=keepdim),
    "nansum": lambda input, dim=None, keepdim=False: jnp.nansum(input, axis=_axes(dim), keepdims=keepdim),
    "nanmean": lambda input, dim=None, keepdim=False: jnp.nanmean(input, axis=_axes(dim), keepdims=keepdim),
    "amax": lambda input, dim=None, keepdim=False: jnp.max(input, axis=_axes(dim) or None, keepdims=keepdim),
    "amin": lambda input, dim=None, keepdim=False: jnp.min(input, axis=_axes(dim) or None, keepdims=keepdim),
    "var": lambda input, dim=None, correction=1, keepdim=False: jnp.var(input, _axes(dim), ddof=correction, keepdims=keepdim),
    "std": lambda input, dim=None, correction=1, keepdim=False: jnp.std(input, _axes(dim), ddof=correction, keepdims=keepdim),
    "cumsum": lambda input, dim: jnp.cumsum(input, dim),
    "cumprod": lambda input, dim: jnp.cumprod(input, dim),
    "flip": lambda input, dims: jnp.flip(input, _axes(dims)),
    "roll": lambda input, shifts, dims=None: jnp.roll(input, _axes(shifts), _axes(dims)),
    "rot90": lambda input, k=1, dims=(0, 1): jnp.rot90(input, k, tuple(dims)),
    "tril": lambda input, diagonal=0: jnp.tril(input, diagonal),
    "triu": lambda input, diagonal=0: jnp.triu(input, diagonal),
    "reshape": lambda input, shape: jnp.reshape(input, shape),
    "permute": lambda input, dims: jnp.transpose(input, dims),
    "diff": lambda input, n=1, dim=-1: jnp.diff(input, n, dim),
    "logcumsumexp": lambda input, dim: jax.lax.cumlogsumexp(input, dim % max(input.ndim, 1)),
    "cross": lambda input, other, dim=-1: jnp.cross(input, other, axis=dim),
    "linalg.cross": lambda input, other, dim=-1: jnp.cross(input, other, axis=dim),
    "nan_to_num": lambda input: jnp.nan_to_num(input),
    "logit": lambda input: jss.logit(input),
    "polygamma": lambda n, input: jss.polygamma(n, input),
    "special.zeta": lambda input, other: jss.zeta(input, other),
    "special.erfcx": lambda input: jnp.exp(input**2) * jss.erfc(input),
    "mvlgamma": lambda input, p: jss.multigammaln(input, p),
    "linalg.det": lambda A: jnp.linalg.det(A),
    "linalg.inv": lambda A: jnp.linalg.inv(A),
    "linalg.slogdet": lambda A: jnp.linalg.slogdet(A),
    "linalg.cholesky": lambda input, upper=False: jnp.linalg.cholesky(input, upper=upper),
    "linalg.solve": lambda A, B, left=True: jnp.linalg.solve(A, B[..., None] if B.ndim == 1 else B).reshape(B.shape),
    "linalg.matrix_power": lambda input, n: jnp.linalg.matrix_power(input, n),
    "linalg.svdvals": lambda A: jnp.linalg.svd(A, compute_uv=False),
    "linalg.vector_norm": lambda x, ord=2, dim=None, keepdim=False: jnp.linalg.vector_norm(
        x, ord=ord, axis=_axes(dim), keepdims=keepdim
    ),
    "linalg.vecdot": lambda x, y, dim=-1: jnp.vecdot(x, y, axis=dim),
    "linalg.pinv": lambda input: jnp.linalg.pinv(input),
    "linalg.tensorinv": lambda input, ind=2: jnp.linalg.tensorinv(input, ind),
    "tensordot": lambda input, other, dims: jnp.tensordot(input, other, dims),
    "cat": lambda tensors, dim=0: jnp.concatenate(tensors, dim),
    "stack": lambda tensors, dim=0: jnp.stack(tensors, dim),
    "linalg.multi_dot": lambda tensors: jnp.linalg.multi_dot(tensors),
    "einsum": lambda equation, operands: jnp.einsum(equation, *operands),
    "take": lambda input, index: input.reshape(-1)[index],
    "index_select": lambda input, dim, index: jnp.take(input, index, axis=dim),
    "gather": lambda input, dim, index: jnp.take_along_axis(input, index, axis=dim),
    "take_along_dim": lambda input, indices, dim=None: jnp.take_along_axis(input, indices, axis=dim),
    "sort": lambda input, dim=-1, descending=False: -jnp.sort(-input, dim) if descending else jnp.sort(input, dim),
    "cov": lambda input, correction=1: jnp.cov(input, ddof=correction),
    "corrcoef": lambda input: jnp.corrcoef(input),
    "nn.functional.leaky_relu": lambda input, negative_slope=0.01: jax.nn.leaky_relu(input, negative_slope),
    "nn.functional.elu": lambda input, alpha=1.0: jax.nn.elu(input, alpha),
    "nn.functional.celu": lambda input, alpha=1.0: jax.nn.celu(input, alpha),
    "nn.functional.gelu": lambda input, approximate="none": jax.nn.gelu(input, approximate=approximate == "tanh"),
    "nn.functional.glu": lambda input, dim=-1: jax.nn.glu(input, dim),
    "nn.functional.softplus": lambda input, beta=1.0: jax.nn.softplus(beta * input) / beta,
    "nn.functional.linear": lambda input, weight, bias=0.0: input @ jnp.swapaxes(weight, -1, -2) + bias if weight.ndim > 1 else input @ weight + bias,
    "nn.functional.layer_norm": lambda input, normalized_shape, weight=1.0, bias=0.0, eps=1e-5: (
        (input - input.mean(tuple(range(-len(normalized_shape), 0)), keepdims=True))
        / jnp.sqrt(input.var(tuple(range(-len(normalized_shape), 0)), keepdims=True) + eps) * weight + bias
    ),
    **{f"fft.{name}": _spectral(name) for name in
       ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fft2", "ifft2", "fftn", "ifftn", "rfftn", "rfft2", "irfftn", "irfft2")},
}  # fmt: skip


def _by_place(of: Function) -> Function:
    return lambda **named: of(*named.values())


OPERATIONS: Final[dict[str, Function]] = {name: _by_place(of) for name, of in (_UNARY | _PAIRS).items()} | _NAMED
