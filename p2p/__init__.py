"""Peers share chunks: the package that the swarm lives in; a mount works without it."""
