"""Makes formulas.json from the derivatives.yaml that PyTorch's wheel carries: `python -m app.engine.explain.formulas_freeze`."""

from __future__ import annotations

import json

import torch

from app.catalogue.introspect.wording.formula_texts import derivatives
from app.engine.explain.formulas import FILE


def read() -> dict[str, str]:
    """Name of an autograd node → its backward formula; of several arguments, each with its name."""
    formulas: dict[str, str] = {}
    for by_key in derivatives():
        for info in by_key.values():
            if info.op is not None and info.derivatives:
                parts = [(", ".join(d.var_names), " ".join(d.original_formula.split())) for d in info.derivatives]
                text = parts[0][1] if len(parts) == 1 else "; ".join(f"{names}: {formula}" for names, formula in parts)
                formulas.setdefault(info.op, text)
    return dict(sorted(formulas.items()))


def main() -> None:
    FILE.write_text(json.dumps({"torch": torch.__version__.partition("+")[0], "formulas": read()}, indent=0) + "\n")


if __name__ == "__main__":
    main()
