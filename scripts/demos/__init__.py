"""What ``scripts/demo`` runs."""
