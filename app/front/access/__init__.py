"""Who may ask: keys, origins, hosts and the size of headers."""
