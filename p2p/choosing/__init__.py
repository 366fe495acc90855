"""What a child of a task does next: which piece from whom. Pure."""
