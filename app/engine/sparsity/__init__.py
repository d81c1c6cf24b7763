"""Which entries of a derivative can be non-zero, proved operator by operator; and few passes for many rows."""
