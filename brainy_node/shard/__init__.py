"""Shard replicas: an immutable, memory-mapped base and a tail of newer records, read as one."""

from brainy_node.shard.hits import Hits, merge_hits

__all__ = ["Hits", "merge_hits"]
