"""`precision`: how many digits of a result are right, which step loses them, and what to write instead."""
