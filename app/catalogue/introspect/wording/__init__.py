"""Words about operations: summaries, meanings of arguments, tags, formulas."""
