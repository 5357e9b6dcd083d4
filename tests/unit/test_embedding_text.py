"""The text of an item's metadata."""

import pytest

from brainy.embedding.text import text_of
from brainy.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"text": "Machine learning", "noun": "Thing"}, "Machine learning"),
        ({"text": " kept as it is "}, " kept as it is "),
        ({"text": ["", " ", "first", "second"]}, "first"),
        ("metadata itself", "metadata itself"),
        (["", "of strings"], "of strings"),
        ({"noun": "Thing", "size": 3}, "noun: Thing size: 3"),
        # Fields that name or describe come first, and twice.
        ({"year": 1999, "title": "Dune", "name": "x"}, "title: Dune name: x title: Dune name: x year: 1999"),
        ({"a": {"b": ["c", {"d": True}]}, "no": None, "zero": 0, "off": False}, "a: b: c d: true"),
        ({"whole": 2.0, "part": 0.5}, "whole: 2 part: 0.5"),
    ],
)
def test_text_of_metadata(metadata: object, text: str) -> None:
    assert text_of(metadata) == text


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        True,
        7,
        "",
        " \n",
        [],
        [""],
        ["a", 1],
        {},
        {"text": ""},
        {"text": "\t "},
        {"text": None},
        {"text": 5},
        {"text": {"en": "words"}},
        {"text": []},
        {"n": None, "m": {}},
    ],
)
def test_no_text_is_an_error_with_a_reason(metadata: object) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        text_of(metadata)
    assert caught.value.reason == "NO_TEXT"
    assert "vector" in caught.value.remedy


def test_depth_is_bounded() -> None:
    deep: object = "words"
    for _ in range(200):
        deep = {"x": deep}
    assert text_of({"name": "top", "deep": deep}) == "name: top name: top"
