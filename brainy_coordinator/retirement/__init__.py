"""Generations that are not served any more: kept for a time, then deleted (docs/protocols/retirement.md).

``contents`` says what of a generation is deleted, ``rules`` decides (pure), ``retirements`` counts, tells and deletes.
"""
