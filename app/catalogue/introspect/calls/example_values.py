"""What the reviewed examples are made of: small values, and the shape of a call.

`{"list": […]}` is a list of tensors, `{"data": …, "dtype": …}` a tensor of that dtype.
"""

from __future__ import annotations

from typing import Any, Final

ROW: Final = [1.0, 2.5, 3.0]
SIGNED: Final = [-1.5, -0.5, 0.5, 2.0]
MATRIX: Final = [[1.0, 2.0], [3.0, 5.0]]
SYMMETRIC: Final = [[4.0, 1.0], [1.0, 3.0]]
IMAGE: Final = [[[[0.1, 0.4, -0.3, 0.8], [0.7, -0.2, 0.5, 0.0], [-0.6, 0.9, 0.2, -0.1], [0.3, -0.4, 0.6, 1.0]]]]
SEQUENCE: Final = [[[0.1, 0.4, -0.3, 0.8]]]
VOLUME: Final = [[[[[0.1, 0.4], [-0.3, 0.8]], [[0.7, -0.2], [0.5, 0.3]]]]]
LOGITS: Final = [[1.2, -0.4, 0.3], [0.1, 0.9, -1.0]]
CLASSES: Final = {"data": [0, 2], "dtype": "int64"}
HIDDEN: Final[dict[str, Any]] = {
    "input": [[0.5, -0.2], [0.1, 0.3]],
    "w_ih": [[0.2, -0.1], [0.4, 0.3]],
    "w_hh": [[0.1, 0.2], [-0.3, 0.1]],
}


def call(parameters: dict[str, Any] | None = None, /, **inputs: Any) -> dict[str, Any]:
    """Inputs and parameters of one call."""
    return {"inputs": inputs, "parameters": parameters or {}}


def gates(count: int, width: int) -> list[list[float]]:
    """A small weight of `count` rows; its values only have to differ."""
    return [[round(0.1 * ((3 * row + 2 * column) % 7 - 3), 1) for column in range(width)] for row in range(count)]


def recurrent(count: int, states: int) -> dict[str, Any]:
    """`lstm`, `gru`, `rnn_*`: three steps of one sequence, two inputs, two hidden units."""
    state = [[[0.1, -0.2]]]
    return call(
        {
            "has_biases": False,
            "num_layers": 1,
            "dropout": 0.0,
            "train": False,
            "bidirectional": False,
            "batch_first": False,
        },
        input=[[[0.5, -0.2]], [[0.1, 0.3]], [[-0.4, 0.6]]],
        hx={"list": [state, state]} if states == 2 else state,
        params={"list": [gates(2 * count, 2), gates(2 * count, 2)]},
    )
