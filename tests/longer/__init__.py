"""Longer tests: programs run by hand that take a minute or gigabytes; each says what it saw."""
