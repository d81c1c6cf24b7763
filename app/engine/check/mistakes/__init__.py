"""Why a derivation is wrong: hypotheses, each tried by making the mistake."""
