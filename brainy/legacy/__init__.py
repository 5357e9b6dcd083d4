"""Brainy's own formats: detect, read, report."""
