"""Data plane: a node owns index shards and their change-log tails."""
