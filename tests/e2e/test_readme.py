"""The README's own commands and its Python block, run as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainy.samples import sample_truth
from tests.e2e.pages import ROOT, read_blocks, run_blocks
from tests.e2e.truth import entries

BLOCKS = read_blocks(ROOT / "README.md")


@pytest.mark.timeout(240)
def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    noun = next(iter(entries(sample_truth()["nouns"])))
    (serving,) = (block for block in BLOCKS if block.runs and block.language == "shell" and "brainy up" in block.code)
    assert "brainy down" in serving.code
    # The environment is set up already; everything after that is run as written.
    ran = run_blocks(
        [serving],
        tmp_path,
        replace={"make setup && source .venv/bin/activate\n": "", "some-noun": noun},
        seconds=220,
    )
    assert noun in ran.output
    assert "SUCCEEDED" in ran.output.upper()
    assert (tmp_path / "work" / "backup.json").stat().st_size > 100_000


@pytest.mark.timeout(120)
def test_the_python_block_of_the_readme(tmp_path: Path) -> None:
    (block,) = (block for block in BLOCKS if block.runs and block.language == "python")
    ran = run_blocks([block], tmp_path, replace={"/srv/brainy": "/srv/empty"})
    assert ran.output.startswith("a 1.0") or "a 0.99" in ran.output
    assert "noun_count=1" in ran.output
