"""What the bytes mean: names, keys, items, manifests and their invariants."""
