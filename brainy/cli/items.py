"""``brainy search`` and ``brainy get``."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.imports import EmbedOption
from brainy.cli.output import JsonOption, current, facts, table
from brainy.cli.target import (
    CoordinatorOption,
    DirectoryOption,
    EndpointOption,
    NamespaceOption,
    OptionalNamespace,
    connect,
    run,
)
from brainy.errors import InvalidRequestError, NotFoundError
from brainy.legacy.values import dump_json, parse_json
from brainy.sdk.values import Noun, SearchResult, Verb

_WIDTH = 100


def search(
    namespace: OptionalNamespace = None,
    vector: Annotated[
        str | None, typer.Option(help="Query vector: numbers separated by commas or spaces, or a JSON array.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="Query text; embedded with the model the namespace records.")
    ] = None,
    item_id: Annotated[str | None, typer.Option("--id", help="Query with the vector of this noun.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=10_000, help="How many neighbours.")] = 10,
    exact: Annotated[bool, typer.Option("--exact", help="Scan instead of using the index.")] = False,
    embed: EmbedOption = None,
    endpoint: EndpointOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Find the nouns nearest to a vector, to a text or to another noun."""
    if [vector, text, item_id].count(None) != 2:
        raise InvalidRequestError("a search needs --vector, --text or --id", remedy="give one of them")
    query = text if vector is None else parse_vector(vector)

    async def ask() -> list[SearchResult]:
        async with connect(namespace, endpoint, coordinator, directory) as brainy:
            brainy.embedder = embed
            return await brainy.search(query, k, id=item_id, exact=exact)

    hits = run(ask())

    def human(console: Console) -> None:
        shown = table(None, "nr#", "id", "score#", "distance#", "metadata")
        for rank, hit in enumerate(hits, 1):
            shown.add_row(str(rank), escape(hit.id), f"{hit.score:.4f}", f"{hit.distance:.4f}", _short(hit.metadata))
        console.print(shown)

    current().result([asdict(hit) for hit in hits], human)


def get(
    item_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the item.")],
    namespace: NamespaceOption = None,
    verb: Annotated[bool, typer.Option("--verb", help="The id is a verb's.")] = False,
    endpoint: EndpointOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Print a noun, or a verb."""

    async def ask() -> Noun | Verb | None:
        async with connect(namespace, endpoint, coordinator, directory) as brainy:
            return await (brainy.get_verb(item_id) if verb else brainy.get(item_id))

    item = run(ask())
    if item is None:
        raise NotFoundError("no such verb" if verb else "no such noun", remedy="check the id", id=item_id)
    found = {
        "id": item.id,
        **(
            {"source": item.source, "target": item.target, "type": item.type, "weight": item.weight}
            if isinstance(item, Verb)
            else {}
        ),
        # JSON knows no NaN; such components print as null.
        "vector": None if item.vector is None else [x if math.isfinite(x) else None for x in item.vector.tolist()],
        "metadata": _printable(item.metadata_json),
        "attributes": _printable(item.attributes_json),
    }

    def human(console: Console) -> None:
        vector = item.vector
        shown = "none" if vector is None else f"{len(vector)} x float32  {vector[:6].tolist()}"
        facts(console, {**found, "vector": shown, "metadata": _short(item.metadata, width=None)})

    current().result(found, human)


def parse_vector(text: str) -> list[float]:
    """Read numbers separated by commas or spaces, or a JSON array.

    Raises:
        InvalidRequestError: something is not a number.
    """
    try:
        return [float(part) for part in text.strip("[] \n").replace(",", " ").split()]
    except ValueError as error:
        raise InvalidRequestError(
            "not a vector", reason="INVALID_VECTOR", remedy="write 0.1,0.2,0.3", cause=error
        ) from error


def _printable(body: bytes | None) -> object:
    if not body:
        return None
    value = parse_json(body)
    try:
        orjson.dumps(value)
    except TypeError:
        return orjson.Fragment(body)  # lone surrogates, or deeper than what the printer indents
    return value


def _short(metadata: object, *, width: int | None = _WIDTH) -> str:
    if metadata is None:
        return ""
    text = dump_json(metadata).decode()
    return escape(text if width is None or len(text) <= width else text[: width - 1] + "…")
