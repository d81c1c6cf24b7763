"""The engine: Query → Plan → results. Each kind of result is a row of `kinds.py`; its rooms plan, differentiate, explain and check."""
