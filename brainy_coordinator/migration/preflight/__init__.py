"""Whether a migration may begin: named checks, each with a remedy."""
