"""Benchmarks: scripts that print figures with units, side by side in one run."""
