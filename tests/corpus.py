"""English sentences for tests: what the standard library's authors wrote about it, and pairs that say the same."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_SENTENCE = re.compile(r"[A-Z][^.!?\n]*(?:\n[^.!?\n]+)*[.!?](?=\s)")

#: A sentence, and another one that means the same in other words.
PARAPHRASES = (
    ("The cat slept on the warm windowsill all afternoon.", "A feline napped by the sunny window for hours."),
    ("Stock prices fell sharply after the central bank raised rates.", "Shares tumbled when interest rates went up."),
    (
        "She baked a chocolate cake for her daughter's birthday.",
        "For her girl's party she made a cocoa dessert.",
    ),
    ("The doctor told him to stop smoking immediately.", "His physician urged him to give up cigarettes at once."),
    ("Heavy rain flooded several villages along the river.", "Towns by the water were inundated by downpours."),
    ("The football team won the championship in extra time.", "The soccer club took the title after overtime."),
    ("Astronomers discovered a planet orbiting a distant star.", "Scientists found a new world around a faraway sun."),
    (
        "The old bridge was closed for repairs until spring.",
        "Till springtime the ancient crossing is shut for fixing.",
    ),
    ("He plays the violin in the city orchestra.", "He is a fiddler in the municipal symphony."),
    ("Bees are essential for pollinating fruit trees.", "Orchards depend on honeybees to fertilise their blossoms."),
    ("The train to Berlin was delayed by two hours.", "The railway service bound for Germany's capital ran late."),
    ("Children learn languages faster than adults.", "Kids pick up new tongues more quickly than grown-ups."),
)


def sentences(count: int) -> list[str]:
    """Return ``count`` different sentences of 30 to 400 characters, the same ones each time."""
    found: dict[str, None] = {}
    for sentence in _all():
        found.setdefault(sentence)
        if len(found) == count:
            return list(found)
    raise ValueError(f"the standard library has only {len(found)} sentences")


def _all() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if {"site-packages", "dist-packages", "test", "tests", "idlelib"} & set(path.parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for match in _SENTENCE.finditer((ast.get_docstring(node) or "") + "\n"):
                    sentence = " ".join(match[0].split())
                    if 30 <= len(sentence) <= 400:
                        yield sentence
