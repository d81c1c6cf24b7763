"""Single functions that stand in the place of PyTorch's (app/catalogue/better_rules.py lists them)."""
