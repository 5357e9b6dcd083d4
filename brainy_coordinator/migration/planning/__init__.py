"""What a migration would do, kept as a plan, and what became of it."""
