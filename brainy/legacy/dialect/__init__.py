"""How each generation of Brainy writes an item, so that it reads what we write (docs/protocols/mirror.md)."""
