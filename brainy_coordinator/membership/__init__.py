"""Which nodes exist and which of them still speak."""
