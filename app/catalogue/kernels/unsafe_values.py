"""The refusal of values that a kernel of PyTorch would follow out of its tensors, or die of."""

from __future__ import annotations

from collections.abc import Collection


class UnsafeValuesError(RuntimeError):
    """Raised in the place of a kernel's own crash; a RuntimeError, so that it travels as PyTorch's own refusals do.

    Arguments:
        argument: the argument at fault, by its public name (`targets`).
        detail: one sentence: what must hold, and what was given.
        expected, given: in words.
        code: `too_costly` where it would only take for ever.
    """

    def __init__(
        self, argument: str, detail: str, expected: str, given: str | None = None, *, code: str = "operation_failed"
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.argument, self.detail, self.expected, self.given = argument, detail, expected, given

    @property
    def fix(self) -> str:
        return f"Send {self.expected}."

    def place(self, inputs: Collection[str], parameters: Collection[str]) -> str:
        """Where the argument stands in a query of one operation: `inputs.targets`, `parameters.chunks`; `inputs` where it has another name."""
        room = "parameters" if self.argument in parameters else "inputs"
        return f"{room}.{self.argument}" if self.argument in (*inputs, *parameters) else "inputs"
