"""AWS credentials and the plain S3 client, both from boto3.

The bytes go through obstore; boto3 knows every way an operator hands out credentials (variables, profiles, SSO,
instance and container roles, web identity) and speaks for the few requests obstore cannot form.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import boto3  # noqa: TID251 - the one place that may
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from obstore.auth.boto3 import Boto3CredentialProvider

from brainy.errors import PermissionDeniedError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Asked for again this often; botocore itself renews expiring ones ten minutes ahead.
_LIFETIME = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """Where the store is and how long to wait for it."""

    #: URL of the endpoint; "" for AWS.
    endpoint: str = ""
    region: str = "us-east-1"
    #: Longest wait for the next bytes of an answer.
    timeout_seconds: float = 30.0


def credential_provider() -> Boto3CredentialProvider:
    """Return a callable that gives obstore fresh credentials of the default boto3 session.

    Raises:
        PermissionDeniedError: no credentials are configured.
    """
    remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with a role"
    try:
        return Boto3CredentialProvider(boto3.Session(), ttl=_LIFETIME)
    except (ValueError, BotoCoreError) as error:
        raise PermissionDeniedError("no credentials for s3", remedy=remedy, cause=error) from error


def s3_client(access: S3Access, *, access_key: str = "", secret_key: str = "") -> S3Client:
    """Return a boto3 client that never retries by itself; explicit keys are for servers started by tests."""
    client: S3Client = boto3.Session().client(
        "s3",
        endpoint_url=access.endpoint or None,
        region_name=access.region,
        config=Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=5,
            read_timeout=access.timeout_seconds,
            max_pool_connections=16,
            s3={"addressing_style": "path" if access.endpoint else "auto"},
        ),
        aws_access_key_id=access_key or None,
        aws_secret_access_key=secret_key or None,
    )
    return client
