"""Sends calls over one grpcio channel; knows no message and raises no error of its own."""

from __future__ import annotations

from typing import Any

import grpc

from ._calls import Call, Reply
from ._endpoint import Endpoint

_OPTIONS = (
    # grpcio refuses answers over 4 MB by default; -1 is no limit.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A proxy named in the environment would swallow calls to servers inside the cluster; the HTTP side uses
    # none.
    ("grpc.enable_http_proxy", 0),
    # After an outage grpcio waits up to two minutes before it connects again, whoever calls meanwhile.
    ("grpc.max_reconnect_backoff_ms", 500),
)


class GrpcTransport:
    """The gRPC side of `_calls.Transport`; connects at the first call. Thread-safe, as its channel is."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._channel: Any = grpc.insecure_channel(endpoint.authority, options=_OPTIONS)
        self._rpcs: dict[str, Any] = {}

    def send(self, call: Call[Any], timeout: float | None) -> Reply:
        """See `Transport.send`; the timeout is the call's gRPC deadline."""
        # Without serializers an RPC takes and gives bytes: this one join is the only copy of a tensor here.
        rpc = self._rpcs.get(call.target)
        if rpc is None:
            rpc = self._rpcs[call.target] = self._channel.unary_unary(call.target)
        try:
            return Reply("OK", body=rpc(b"".join(call.body), timeout=timeout))
        except grpc.RpcError as error:
            return Reply(error.code().name, message=error.details() or "")

    def close(self) -> None:
        """See `Transport.close`; calls in flight fail."""
        self._channel.close()
