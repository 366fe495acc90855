"""The scheduler's core: what hosts tell and `now` in, messages to hosts out. Pure."""
