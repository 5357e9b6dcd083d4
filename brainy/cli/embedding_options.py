"""Options of ``brainy migrate`` about the index and the model of a target."""

from __future__ import annotations

from typing import Annotated

import typer

from brainy.errors import InvalidRequestError
from brainy.sdk.reembedding import Reembedding

ExpansionAddOption = Annotated[int, typer.Option(min=0, help="Candidates kept while the index is built; 0 for as now.")]
ExpansionSearchOption = Annotated[int, typer.Option(min=0, help="Candidates kept by a search; 0 for as now.")]
DimensionsOption = Annotated[
    int, typer.Option(min=0, help="Length of the target's vectors; another than now needs --embed. 0 for what it is.")
]
PartitioningOption = Annotated[str, typer.Option(help="How items are spread over shards: hash.")]
EmbedOption = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="Let this model make every vector anew out of the nouns' texts: minilm, or http://host:8080#model as the"
        " nodes reach it.",
    ),
]
WithoutTextOption = Annotated[
    int, typer.Option(min=0, help="With --embed: how many nouns may have no text, and so no vector.")
]


def model_of(embed: str, without_text: int) -> Reembedding | None:
    """Return the model an operator names; None for none.

    Raises:
        InvalidRequestError: not a model, or something is accepted of which there is none.
    """
    if embed:
        return Reembedding.of(embed, without_text_limit=without_text)
    if without_text:
        raise InvalidRequestError("no text is needed where nothing is embedded", remedy="name the model: --embed")
    return None
