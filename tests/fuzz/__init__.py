"""Damaged buckets at random: whatever lies there, nothing crashes and nothing is lost without a word."""
