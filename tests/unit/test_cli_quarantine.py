"""``brainy quarantine`` and ``brainy rescue`` on a bucket, without a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from brainy.cli.main import app
from brainy.dataset.export import beside_of, exported_body, read_export
from brainy.errors import InvalidRequestError


@pytest.fixture
def namespace(tmp_path: Path) -> str:
    bucket = tmp_path / "bucket"
    objects = {
        "nouns/a.json": b'{"id": "a", "vector": [1, 2], "connections": {}}',
        "nouns/b [x].json": b"<html>",
        "metadata/b [x].json": b'{"name": "b"}',
        "nouns/c.json": b"",
        "metadata/d.json": b'{"name": "d"}',
        "change-log/0000000000001-x.json": json.dumps(
            {
                "timestamp": 1,
                "operation": "add",
                "entityType": "noun",
                "entityId": "d",
                "data": {"vector": [1.0, 2.0, 3.0]},
            }
        ).encode(),
    }
    for key, body in objects.items():
        path = bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return f"file://{bucket}"


def brainy(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == status, (arguments, done.output, done.exception)
    return done.stdout if status == 0 else done.output


def machine(*arguments: str) -> Any:
    return orjson.loads(brainy(*arguments, "--json"))


def test_list(namespace: str) -> None:
    found = machine("quarantine", "list", namespace)
    assert (found["generation"], found["quarantined"], found["replayed"]) == (None, 2, 0)
    assert found["by_reason"] == {"not-json": 1, "empty": 1}
    assert found["objects"][0] == {
        "key": "nouns/b [x].json",
        "reason": "not-json",
        "size": 6,
        "state": "quarantined",
        "replayed": None,
    }
    assert [row["key"] for row in machine("quarantine", "list", namespace, "--reason", "empty")["objects"]] == [
        "nouns/c.json"
    ]
    shown = brainy("quarantine", "list", namespace)
    assert "nouns/b [x].json" in shown
    assert "2 quarantined (not-json 1, empty 1)" in shown


def test_export(namespace: str, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    shown = brainy("quarantine", "export", namespace, "-o", str(directory))
    assert "2 objects" in shown
    assert "replay" in shown
    export = read_export(directory)
    assert (export.namespace, export.generation) == (namespace, None)
    rows = {row.key: row for row in export.objects}
    row = rows["nouns/b [x].json"]
    assert exported_body(directory, row) == b"<html>"
    assert beside_of(row) == {"metadata/b [x].json": b'{"name": "b"}'}
    assert exported_body(directory, rows["nouns/c.json"]) == b""
    assert "must be empty" in brainy("quarantine", "export", namespace, "-o", str(directory), status=4)
    assert machine("quarantine", "export", namespace, "-o", str(tmp_path / "two"), "--reason", "empty")["objects"] == 1


@pytest.mark.parametrize("altered", ["", "[]", '{"format_version": 1}', "null"])
def test_an_altered_manifest_is_refused(namespace: str, tmp_path: Path, altered: str) -> None:
    directory = tmp_path / "out"
    brainy("quarantine", "export", namespace, "-o", str(directory))
    (directory / "manifest.json").write_text(altered)
    said = brainy("quarantine", "replay", namespace, "--from", str(directory), status=2)
    assert "nothing was written" in said
    assert "export" in brainy("quarantine", "replay", namespace, "--from", str(tmp_path / "none"), status=2)


def test_a_manifest_cannot_name_files_elsewhere(namespace: str, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    brainy("quarantine", "export", namespace, "-o", str(directory))
    row = read_export(directory).objects[0]
    with pytest.raises(InvalidRequestError, match="outside"):
        exported_body(directory, row.model_copy(update={"file": "../bucket/nouns/a.json"}))
    with pytest.raises(InvalidRequestError, match="altered"):
        beside_of(row.model_copy(update={"beside_key": "k", "beside": "?"}))


def test_rescue_shows(namespace: str) -> None:
    found = machine("rescue", namespace)
    assert (found["applied"], found["counts"]["states"]) == (False, {"found": 1})
    (row,) = found["nouns"]
    assert (row["id"], row["cause"], row["dimensions"]) == ("d", "deleted-for-dimension", 3)
    assert row["added_at"] == "1970-01-01T00:00:00.001Z"
    assert (row["entry_key"], row["metadata_key"]) == ("change-log/0000000000001-x.json", "metadata/d.json")
    assert "brainy rescue" in brainy("rescue", namespace)


def test_a_bucket_that_is_not_brainys(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    for command in (("quarantine", "list"), ("rescue",)):
        assert "NOT_A_BRAINY_BUCKET" in brainy(*command, f"file://{tmp_path}", status=4)
