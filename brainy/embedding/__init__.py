"""Vectors out of texts: the offline model Brainy uses, an OpenAI-style endpoint, or any Python callable."""
