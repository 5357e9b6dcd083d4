"""What is read from metadata."""

from __future__ import annotations

import pytest

from brainy_node.shard.facts import Facts, facts_of, verb_service

MADE_BY = b'{"createdBy":{"augmentation":"%s","version":"1"}}'


@pytest.mark.parametrize(
    ("metadata", "facts"),
    [
        (None, Facts()),
        (b"null", Facts(documented=True)),
        (b"[1]", Facts(documented=True)),
        (b"{broken", Facts(documented=True)),
        (b"", Facts(documented=True)),
        (b'{"noun":"person","nounType":"thing"}', Facts(type="person", documented=True)),
        (b'{"noun":7,"nounType":"thing","deleted":true}', Facts(True, "", "thing", True)),
        (MADE_BY % b"github", Facts(service="github", documented=True)),
        (b'{"createdBy":{"augmentation":7}}', Facts(documented=True)),
    ],
)
def test_facts_of_a_noun(metadata: bytes | None, facts: Facts) -> None:
    assert facts_of(metadata) == facts


@pytest.mark.parametrize(
    ("metadata", "attributes", "service"),
    [
        (None, None, ""),
        (MADE_BY % b"github", None, "github"),
        (None, MADE_BY % b"slack", "slack"),
        (MADE_BY % b"github", MADE_BY % b"slack", "github"),
        (b'{"createdBy":"someone"}', MADE_BY % b"slack", "slack"),
        (b'{"createdBy', b"[]", ""),
        (b'["createdBy"]', b'{"createdBy":{}}', ""),
    ],
)
def test_service_of_a_verb(metadata: bytes | None, attributes: bytes | None, service: str) -> None:
    assert verb_service(metadata, attributes) == service
