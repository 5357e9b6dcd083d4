"""Whether two datasets hold the same, while both may be written: docs/protocols/verify.md."""
