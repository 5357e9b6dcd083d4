"""JSON exactly as JavaScript prints it: ``JSON.stringify(value)`` and ``JSON.stringify(value, null, 2)``.

Objects keep their order, numbers take JavaScript's shortest form, what is not finite becomes null and a lone
surrogate an escape. Two things JavaScript cannot say are kept for those who can, and read by it as its nearest number:
whole numbers beyond 2^53 keep all their digits, and with ``exact`` 1.0 keeps its point.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from json.encoder import encode_basestring
from typing import Any

import orjson

_END = object()
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def number(value: float) -> str:
    """Return a number as JavaScript prints it."""
    if isinstance(value, int):
        return int.__repr__(value)
    text = float.__repr__(value)
    if "e" not in text:
        if text.endswith(".0"):
            whole = text[:-2]
            return "0" if whole == "-0" else whole
        return text if text[-1] not in "fn" else "null"
    return _with_exponent(text)


def _with_exponent(text: str) -> str:
    # Python turns to exponents at 1e16 and 1e-5, JavaScript at 1e21 and 1e-7; the digits are the same.
    sign = "-" if text[0] == "-" else ""
    mantissa, _, power = text.removeprefix("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).rstrip("0") or "0"
    point = int(power) + len(whole)
    if len(digits) <= point <= 21:
        return f"{sign}{digits}{'0' * (point - len(digits))}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    exponent = point - 1
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if exponent > 0 else '-'}{abs(exponent)}"


class Vector(list[Any]):
    """An array of components: whole ones have no point, also where the document around it is exact."""


def _components(vector: Vector, line: str) -> str | None:
    """The components of a vector, each after a line break; None if some are no scalars. Nearly all of the text."""
    try:
        plain = orjson.dumps(vector)
    except TypeError:  # whole numbers beyond 64 bits, lone surrogates
        plain = b"?"
    # Digits are the same everywhere; only exponents and negative zero are spelled differently.
    if plain.translate(None, b"-.,0123456789") == b"[]" and b"-0.0," not in plain and not plain.endswith(b"-0.0]"):
        text = plain[1:-1].decode()
        if ".0," in text or text.endswith(".0"):
            text = f"{text},".replace(".0,", ",")[:-1]
        return line + text.replace(",", f",{line}")
    if any(isinstance(part, (dict, list)) for part in vector):
        return None
    return line + f",{line}".join(map(_component, vector))


def _component(value: object) -> str:
    if type(value) is float:
        text = number(value)
        return "-0.0" if text == "0" and str(value)[0] == "-" else text
    return _scalar(value, exact=False)


def _exact(value: float) -> str:
    # What reads back as the same value in a language that tells 1 from 1.0.
    if value == 0 and str(value)[0] == "-":
        return "-0.0"
    text = number(value)
    return f"{text}.0" if type(value) is float and text.lstrip("-").isdigit() else text


def _scalar(value: object, *, exact: bool) -> str:
    if isinstance(value, str):
        return encode_basestring(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, (int, float)):
        return _exact(value) if exact else number(value)
    raise TypeError(f"not a JSON value: {type(value).__name__}")


def stringify(value: object, *, indent: int = 0, exact: bool = False) -> bytes:
    """Return a JSON value as JavaScript would print it, in UTF-8.

    Args:
        value: None, bool, int, float, str, list or dict with text keys, to any depth.
        indent: spaces for each level; 0 prints it in one line without any.
        exact: whether whole floats and negative zero stay what they are.

    Raises:
        TypeError: something else.
    """
    text = "".join(_Printer(indent, exact).print(value))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


class _Printer:
    """Keeps its own stack: a document may be nested deeper than Python may call."""

    def __init__(self, indent: int, exact: bool) -> None:
        self._indent = indent
        self._exact = exact
        self._colon = ": " if indent else ":"
        self._out: list[str] = []
        self._stack: list[tuple[Iterator[Any], str, bool]] = []

    def print(self, value: object) -> list[str]:
        out, stack = self._out, self._stack
        self._open(value)
        while stack:
            parts, closing, first = stack[-1]
            part: Any = next(parts, _END)
            if part is _END:
                stack.pop()
                out.append(self._line(len(stack)) + closing)
                continue
            if first:
                stack[-1] = (parts, closing, False)
            else:
                out.append(",")
            out.append(self._line(len(stack)))
            if closing == "}":
                name, part = part
                out.append(encode_basestring(name) + self._colon)
            self._open(part)
        return out

    def _line(self, level: int) -> str:
        return "\n" + " " * (self._indent * level) if self._indent else ""

    def _open(self, value: object) -> None:
        if isinstance(value, dict):
            if value:
                self._out.append("{")
                self._stack.append((iter(value.items()), "}", True))
            else:
                self._out.append("{}")
        elif isinstance(value, list):
            if not value:
                self._out.append("[]")
            elif isinstance(value, Vector) and (text := _components(value, self._line(len(self._stack) + 1))):
                self._out.append(f"[{text}{self._line(len(self._stack))}]")
            else:
                self._out.append("[")
                self._stack.append((iter(value), "]", True))
        else:
            self._out.append(_scalar(value, exact=self._exact))
