"""The front door: any node answers for the whole namespace by asking the nodes that hold its shards."""
