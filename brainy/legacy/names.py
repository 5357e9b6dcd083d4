"""Counting names that users choose."""

from __future__ import annotations

from collections import Counter

#: Different names counted in one tally; user data may hold any number.
_MAX_NAMES = 500
_OTHER = "(other)"


def shown(name: str) -> str:
    """Return a name as text that every encoding can carry: lone surrogates as escapes."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


class Names(Counter[str]):
    """A counter of names that stops growing."""

    def see(self, name: object, count: int = 1) -> None:
        """Count a name; anything but text is passed over."""
        if isinstance(name, str):
            name = shown(name)
            self[name if name in self or len(self) < _MAX_NAMES else _OTHER] += count
