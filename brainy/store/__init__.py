"""Bytes with conditional writes: the object store and its implementations."""
