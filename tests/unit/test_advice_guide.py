"""docs/guide/choosing.md names every key, option and code; runbooks and steps name only commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from test_advice_decision import GENERATION, LIVE, QUIET, SERVED
from test_inspection_guide import first_cells, paths
from typer.main import get_command

from brainy.advice import advising, drafts, situation, strategies
from brainy.advice.advising import advise
from brainy.advice.values import Advice, Answers, Way
from brainy.cli.main import app

_CHECKOUT = Path(__file__).resolve().parents[2]
_RUNBOOKS = _CHECKOUT / "docs" / "runbooks"
#: Made once: it takes a moment.
_BRAINY: Any = get_command(app)
_CODE = re.compile(r'"([A-Z]+(?:_[A-Z]+)*)"')


@pytest.fixture(scope="module")
def guide() -> str:
    return (_CHECKOUT / "docs" / "guide" / "choosing.md").read_text()


def check(line: str) -> None:
    """Fail unless a command line names a command, and only options that it has."""
    words = shlex.split(line, comments=True)
    assert words.pop(0) == "brainy"
    command = _BRAINY
    while hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, line
        command = command.commands[name]
    options = {opt for parameter in command.params for opt in (*parameter.opts, *parameter.secondary_opts)}
    if "--" in words:
        check(" ".join(words[words.index("--") + 1 :]))
        words = words[: words.index("--")]
    for word in words:
        assert not word.startswith("-") or word in options, f"{line}: {word}"


def test_every_key_is_described_and_no_other(guide: str) -> None:
    described = first_cells(guide.partition("## The JSON")[2].partition("| code |")[0])
    assert len(described) == len(set(described))
    assert set(described) == set(paths(Advice))


def test_every_code_is_described_and_no_other(guide: str) -> None:
    given = {
        code
        for module in (advising, drafts, situation, strategies)
        for code in _CODE.findall(Path(str(module.__file__)).read_text())
    }
    assert set(first_cells(guide.partition("| code |")[2])) == given - {"NEW"}


def test_every_option_is_described(guide: str) -> None:
    parameters = _BRAINY.commands["advise"].params
    options = {name for each in parameters for name in (*each.opts, *each.secondary_opts) if name.startswith("--")}
    named = {name for name in first_cells(guide.partition("## The JSON")[0]) if name.startswith("--")}
    assert named == options


def test_every_strategy_has_its_runbook(guide: str) -> None:
    for strategy in Way:
        text = (_RUNBOOKS / f"{strategy}.md").read_text()
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert headings == ["Before", "Steps", "Watch", "Back", "What can go wrong"], strategy
        assert f"](../runbooks/{strategy}.md)" in guide
        assert f"`{strategy}`" in guide


def test_the_graph_leads_to_every_strategy(guide: str) -> None:
    graph = guide.partition("```mermaid")[2].partition("```")[0].lower()
    for strategy in Way:
        assert str(strategy).replace("-", " ").replace(" and ", " & ") in graph.replace("-", " "), strategy


def test_runbooks_name_commands_that_there_are() -> None:
    checked = 0
    for page in _RUNBOOKS.glob("*.md"):
        for block in re.findall(r"```shell\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                check(line)
                checked += 1
    assert checked > 30


def test_links_of_runbooks_lead_somewhere() -> None:
    for page in _RUNBOOKS.glob("*.md"):
        for target, fragment in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
            found = (page.parent / target).resolve()
            assert found.is_file(), f"{page.name}: {target}"
            if fragment:
                headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
                anchors = {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}
                assert fragment in anchors, f"{page.name}: {target}#{fragment}"


@pytest.mark.parametrize("facts", [QUIET, LIVE, SERVED, GENERATION], ids=lambda facts: facts.state + facts.basis)
@pytest.mark.parametrize("answers", [{}, {"target": "s3://b/c"}, {"vectors": False}, {"keep_source": True}])
def test_steps_are_commands_that_there_are(facts: Any, answers: dict[str, Any]) -> None:
    for proposal in advise(facts, Answers(**answers)).strategies:
        for step in proposal.steps:
            assert step.what
            if step.command:
                check(step.command)
