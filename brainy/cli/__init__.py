"""The brainy command."""
