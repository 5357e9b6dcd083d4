"""The README's own commands and its Python block, run as they stand there."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from brainy.config.environment import inherited
from brainy.samples import sample_truth
from tests.e2e.test_crashes import sample_bucket
from tests.e2e.truth import entries

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def block(after: str, language: str) -> str:
    """The first code block of a language after a sentence of the README."""
    found = re.search(rf"```{language}\n(.*?)```", README[README.index(after) :], re.S)
    assert found, after
    return found[1]


@pytest.mark.timeout(240)
def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    asyncio.run(sample_bucket(bucket))
    noun = next(iter(entries(sample_truth()["nouns"])))
    commands = block("Serve a bucket of your own", "sh").replace("/srv/brainy", str(bucket))
    commands = commands.replace("some-noun", noun).replace("backup.json", str(tmp_path / "backup.json"))
    # The environment is set up already; everything after that is run as written.
    script = "\n".join(line for line in commands.splitlines() if not line.startswith("make setup"))
    assert "brainy up" in script
    assert "brainy down" in script
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        timeout=220,
        env=inherited(
            XDG_CACHE_HOME=str(tmp_path / "cache"),
            PATH=f"{Path(sys.executable).parent}:{inherited()['PATH']}",
        ),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert noun in ended.stdout
    assert "SUCCEEDED" in ended.stdout.upper()
    assert (tmp_path / "backup.json").stat().st_size > 100_000


@pytest.mark.timeout(120)
def test_the_python_block_of_the_readme(tmp_path: Path) -> None:
    code = block("## From Python", "python").replace("/srv/brainy", str(tmp_path / "bucket"))
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        env=inherited(XDG_CACHE_HOME=str(tmp_path / "cache")),
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("a 1.0") or "a 0.99" in ended.stdout
    assert "noun_count=1" in ended.stdout
