"""A generation or a Brainy tree as a stream of items, whatever it is stored as."""
