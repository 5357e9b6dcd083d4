"""What a node keeps of each namespace: routing in force, shard replicas, ownership."""
