"""The write path: dense, fenced slots in the object store."""
