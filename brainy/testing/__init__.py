"""Fakes and fixtures for tests; never imported by the product."""
