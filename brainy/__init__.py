"""Brainy Cluster: the kernel both roles share, the SDK and the command."""
