"""docs/guide/inspect.md names every key of the account and every code of advice, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from typer.main import get_command

from brainy.cli.main import app
from brainy.legacy import advice as rules
from brainy.legacy import hazards, remarks
from brainy.legacy.batch import Reason
from brainy.legacy.census import Inspection

_CHECKOUT = Path(__file__).resolve().parents[2]
_CODE = re.compile(r"`([^`]+)`")
_ADVICE_CODE = re.compile(r'"([A-Z]+(?:_[A-Z]+)*)"')
#: Values whose keys are not data.
_FIXED = {"store_calls": ("list", "get", "partial_get")}


@pytest.fixture(scope="module")
def guide() -> str:
    return (_CHECKOUT / "docs" / "guide" / "inspect.md").read_text()


def first_cells(text: str) -> list[str]:
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in _CODE.findall(row)]


def paths(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield from _paths(name, field.annotation)


def _paths(path: str, kind: object) -> Iterator[str]:
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (part for part in get_args(kind) if part is not NoneType)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield from _paths(f"{path}.{name}", field.annotation)
    elif get_origin(kind) is tuple:
        yield from _paths(f"{path}[]", get_args(kind)[0])
    elif get_origin(kind) is dict:
        if path in _FIXED:
            yield from (f"{path}.{name}" for name in _FIXED[path])
        else:
            yield from _paths(f"{path}{{}}", get_args(kind)[1])
    else:
        yield path


def test_every_key_is_described_and_no_other(guide: str) -> None:
    described = first_cells(guide.partition("## The JSON")[2].partition("| code |")[0])
    assert len(described) == len(set(described))
    assert set(described) == set(paths(Inspection))


def test_every_code_of_advice_is_described_and_no_other(guide: str) -> None:
    described = first_cells(guide.partition("| code |")[2])
    given = {
        code for module in (hazards, remarks) for code in _ADVICE_CODE.findall(Path(str(module.__file__)).read_text())
    }
    assert set(described) == given
    assert len(described) == len(given)
    assert all(f"`{severity}`" in guide for severity in rules.SEVERITIES)


def test_every_reason_is_described(guide: str) -> None:
    assert all(f"`{reason}`" in guide for reason in Reason)


def test_every_option_is_described(guide: str) -> None:
    options = {name for parameter in get_command(app).commands["inspect"].params for name in parameter.opts}  # type: ignore[attr-defined]
    named = {name for name in first_cells(guide.partition("## The JSON")[0]) if name.startswith("--")}
    assert named == {name for name in options if name.startswith("--")}
