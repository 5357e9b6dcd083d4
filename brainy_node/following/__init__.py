"""Taking over what Brainy processes still write into the tree (docs/protocols/follow.md)."""
