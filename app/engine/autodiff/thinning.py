"""Dense matrices of a whole batch thinned to the layout of one sample: where samples are small, their dense matrices come at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from app.engine.autodiff.blocks import Report, Single
from app.engine.tensors import SparseTensor


def can_thin(report: Report, samples: int, limit_bytes: int) -> bool:
    """Whether every layout holds for all samples, and their dense matrices together stay within `limit_bytes`."""
    sizes = [output.numel() * leaf.numel() * output.element_size() for output, leaf in report.shapes.values()]
    return all(layout.reusable for layout in report.layouts.values()) and samples * sum(sizes) <= limit_bytes


def thinned(kind: str, tree: Mapping[str, Mapping[str, Tensor]], report: Report) -> dict[str, dict[str, Single]]:
    """`{row: {column: …}}` of dense matrices `[samples, output…, input…]`, each in its layout."""
    return {
        row: {column: _thin(dense, f"{kind}.{row}.{column}", report) for column, dense in by_column.items()}
        for row, by_column in tree.items()
        if any(path.startswith(f"{kind}.{row}.") for path in report.layouts)
    }


def _thin(dense: Tensor, path: str, report: Report) -> Single:
    layout, (output, leaf) = report.layouts[path], report.shapes[path]
    samples = dense.shape[0]
    if layout.form == "dense":
        return dense
    flat = dense.detach().reshape(samples, output.numel(), leaf.numel())
    if layout.rows is None or layout.columns is None:
        if layout.form == "diagonal":
            return flat.diagonal(dim1=1, dim2=2).reshape(samples, *leaf.shape)
        values = flat.reshape(samples, -1)
    else:
        rows, columns = layout.rows.long().to(flat.device), layout.columns.long().to(flat.device)
        values = flat[:, rows, columns]
    if layout.form == "block":
        return values.reshape(samples, *output.shape, *leaf.shape[1:])
    if layout.form == "diagonal":
        if layout.picked is None:
            return values.reshape(samples, *leaf.shape)
        return flat.diagonal(dim1=1, dim2=2).reshape(samples, *leaf.shape)
    one = report.indices(path)
    sample = torch.arange(samples, device=one.device).repeat_interleave(one.shape[1])
    indices = torch.cat([sample[None], one.repeat(1, samples)])
    holds: Literal["everywhere", "here"] = "everywhere" if layout.everywhere else "here"
    return SparseTensor((samples, *output.shape, *leaf.shape), indices, values.reshape(-1), holds)


def values_of(tree: Any, samples: int | None) -> Any:
    """The tree with the values of sparse results in their places, `[samples, entries]`, or `[entries]` of one sample."""
    if isinstance(tree, SparseTensor):
        return tree.values if samples is None else tree.values.reshape(samples, -1)
    if isinstance(tree, Mapping):
        return {key: values_of(member, samples) for key, member in tree.items()}
    return tree
