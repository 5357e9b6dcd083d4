"""AWS credentials and the plain S3 client, both from boto3.

The bytes go through obstore; boto3 knows every way an operator hands out credentials (variables, profiles, SSO,
instance and container roles, web identity) and speaks for the few requests obstore cannot form.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import boto3  # noqa: TID251 - the one place that may
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import create_loader
from obstore.auth.boto3 import Boto3CredentialProvider

from brainy.errors import PermissionDeniedError
from brainy.store.s3_access import S3Access

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Asked for again this often; botocore itself renews expiring ones ten minutes ahead.
_LIFETIME = timedelta(minutes=5)


# Reading botocore's description of S3 takes 0.1 s; sessions share it, but not what they know of credentials.
_LOADER = create_loader()


def _session() -> boto3.Session:
    core = botocore.session.get_session()
    core.register_component("data_loader", _LOADER)
    return boto3.Session(botocore_session=core)


def credential_provider() -> Boto3CredentialProvider:
    """Return a callable that gives obstore fresh credentials of the default boto3 session.

    Raises:
        PermissionDeniedError: no credentials are configured.
    """
    remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with a role"
    try:
        return Boto3CredentialProvider(_session(), ttl=_LIFETIME)
    except (ValueError, BotoCoreError) as error:
        raise PermissionDeniedError("no credentials for s3", remedy=remedy, cause=error) from error


def s3_client(access: S3Access, *, access_key: str = "", secret_key: str = "") -> S3Client:
    """Return a boto3 client that never retries by itself; explicit keys are for servers started by tests."""
    client: S3Client = _session().client(
        "s3",
        endpoint_url=access.endpoint or None,
        region_name=access.region,
        config=Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=5,
            read_timeout=access.timeout_seconds,
            max_pool_connections=16,
            # Look-alikes stumble over checksum trailers; TLS and our own digests cover the bytes.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if access.endpoint else "auto"},
        ),
        aws_access_key_id=access_key or None,
        aws_secret_access_key=secret_key or None,
    )
    return client
