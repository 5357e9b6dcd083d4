"""What a node runs: its view of the routing record, its shard replicas and their duties."""
