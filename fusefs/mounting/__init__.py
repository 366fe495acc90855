"""The kernel's side of a mount, and the processes that keep it."""
