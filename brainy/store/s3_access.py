"""Where an S3 store is and how long to wait for it."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.config.environment import s3_endpoint, s3_region
from brainy.config.settings import StoreSettings

_DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """How to reach a bucket. Credentials are not part of it; see ``credentials``."""

    #: URL of the endpoint; "" for AWS.
    endpoint: str = ""
    region: str = _DEFAULT_REGION
    #: Longest wait for the next bytes of an answer.
    timeout_seconds: float = 30.0

    @classmethod
    def of(cls, settings: StoreSettings) -> S3Access:
        """Take endpoint and region from the settings, else from the AWS variables."""
        return cls(
            endpoint=(settings.endpoint or s3_endpoint()).rstrip("/"),
            region=settings.region or s3_region() or _DEFAULT_REGION,
            timeout_seconds=settings.request_timeout_seconds,
        )
