"""Channel arguments both ends must agree on."""

from __future__ import annotations

from typing import Any, Final

#: Largest message either way, bytes.
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
#: Longest a unary call may run on a server, whatever the client asked for.
MAX_DEADLINE_SECONDS: Final = 60.0
#: What a call gets when its client set no deadline.
DEFAULT_DEADLINE_SECONDS: Final = 30.0

#: A dead peer is noticed within this time plus the timeout. Servers tolerate pings twice as often; a stock
#: server would answer them with GOAWAY, which is why the two are set together.
KEEPALIVE_MILLISECONDS: Final = 30_000
KEEPALIVE_TIMEOUT_MILLISECONDS: Final = 10_000
#: Connections are renewed, so that clients behind an L4 balancer find new nodes.
MAX_CONNECTION_AGE_MILLISECONDS: Final = 30 * 60_000
MAX_CONNECTION_AGE_GRACE_MILLISECONDS: Final = 5 * 60_000

ChannelArguments = list[tuple[str, Any]]


def server_arguments(*, max_message_bytes: int = MAX_MESSAGE_BYTES) -> ChannelArguments:
    """Arguments of every server."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # Two processes on one port would each get a part of the calls, unnoticed.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", KEEPALIVE_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MILLISECONDS),
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MILLISECONDS // 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_MILLISECONDS),
        ("grpc.max_connection_age_grace_ms", MAX_CONNECTION_AGE_GRACE_MILLISECONDS),
    ]


def channel_arguments(*, max_message_bytes: int = MAX_MESSAGE_BYTES) -> ChannelArguments:
    """Arguments of every client channel."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # Retries are decided where the request_id is known, never below.
        ("grpc.enable_retries", 0),
        ("grpc.keepalive_time_ms", KEEPALIVE_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MILLISECONDS),
        # A node that restarts is found again within a second or two, not gRPC's two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        # In spite of its name the time a handshake may take: a busy machine needs more than the backoff.
        ("grpc.min_reconnect_backoff_ms", 5000),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # Channels do not share connections, so closing one cannot disturb another.
        ("grpc.use_local_subchannel_pool", 1),
    ]
