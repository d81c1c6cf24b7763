"""What the results of each operator depend on: one rule for each kind of operator, one table of which has which."""
