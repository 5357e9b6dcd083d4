"""Backups: Brainy's own JSON file and the native archive, written from a bucket, proven, and restored."""
