"""Control plane: leadership, membership, placement and migrations."""
