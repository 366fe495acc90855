"""Pages pushed into the kernel ahead of readers: which, when, and how many."""
