"""One module per command; each has a ``command``, found by its name."""
