"""The front's side of its processes: a channel to each, and what is known of it."""
