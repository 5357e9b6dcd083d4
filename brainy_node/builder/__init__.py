"""The process that builds bases and indexes, so that serving processes never do."""
