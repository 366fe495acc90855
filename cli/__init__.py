"""The command line: one module per command, and the only place where things are wired together."""
