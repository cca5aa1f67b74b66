"""Sends requests over a grpcio channel, blocking; does not know what they mean and raises no error of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
from grpc._cython import cygrpc

from .._protocol.calls import Request, Response, closed_response, idle_response
from .._protocol.errors import NotSupported
from .endpoint import Endpoint
from .interrupt import IdleWatch, interruptible
from .security import TLS

# A server of gRPC core says "too many pings" to a client that pings an idle connection more often than every
# five minutes, and hangs up (`grpc.http2.min_ping_interval_without_data_ms`; Triton's --grpc-http2-min-recv-
# ping-interval-without-data). Load balancers forget idle connections after 350 s (AWS) or more.
_KEEPALIVE_MS = 310_000
_KEEPALIVE_TIMEOUT_MS = 10_000


def options(endpoint: Endpoint, tls: TLS | None) -> list[tuple[str, Any]]:
    """The channel arguments, the same for both kinds of channel."""
    arguments: list[tuple[str, Any]] = [
        # grpcio refuses responses over 4 MB by default; -1 is no limit.
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # A proxy named in the environment would swallow calls to servers inside the cluster; the HTTP side
        # uses none.
        ("grpc.enable_http_proxy", 0),
        # After an outage grpcio waits up to two minutes before it connects again, whoever calls meanwhile.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # Retries are ours: gRPC's own would multiply with them.
        ("grpc.enable_retries", 0),
    ]
    name = (tls.server_name if tls else "") or endpoint.name
    if name:
        arguments.append(("grpc.default_authority", name))
        if endpoint.tls:
            arguments.append(("grpc.ssl_target_name_override", name))
    return arguments


def channel_credentials(tls: TLS | None) -> Any:
    """TLS for a channel."""

    def read(path: Any) -> bytes | None:
        return None if path is None else Path(path).read_bytes()

    tls = tls or TLS()
    return grpc.ssl_channel_credentials(read(tls.ca), read(tls.key), read(tls.certificate))


def compression_of(name: str | None) -> Any:
    """grpcio's constant for a compression."""
    return {None: None, "gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}[name]


def metadata(request: Request, credentials: Mapping[str, str]) -> list[tuple[str, str]] | None:
    """A request's headers and credentials as gRPC metadata."""
    if not request.headers and not credentials:
        return None
    return [(name.lower(), value) for name, value in {**credentials, **request.headers}.items()]


def failed_response(error: Any) -> Response:
    """The response of a failed RPC; the same for both kinds of channel."""
    trailing = {str(name): str(value) for name, value in error.trailing_metadata() or ()}
    return Response(error.code().name, message=error.details() or "", headers=trailing)


def _watched(call: Any, watch: IdleWatch) -> Iterator[bytes]:
    """The messages of an RPC, which ends where the next one does not come in time."""
    with watch:
        while True:
            with watch.waiting():
                message = next(call, None)
            if message is None:
                return
            yield message


def check_cooperation() -> None:
    """Refuse a gRPC that would stop all greenlets: its core waits in C.

    Raises:
        NotSupported: gevent has patched this process, and gRPC is not set up for it.
    """
    monkey = sys.modules.get("gevent.monkey")  # of whoever uses it; nothing here imports it
    if monkey is None or not monkey.is_module_patched("threading"):
        return
    if not getattr(cygrpc, "g_gevent_activated", True):  # a release without this name is let through
        raise NotSupported(
            "this process is patched by gevent, and gRPC is not: every call would stop all greenlets",
            "call grpc.experimental.gevent.init_gevent() after patching and before this, or use an http:// endpoint",
        )


class GrpcTransport:
    """The gRPC side of `Transport`; connects at the first call. Thread-safe, as its channel is."""

    def __init__(self, endpoint: Endpoint, tls: TLS | None, compression: str | None) -> None:
        check_cooperation()
        how: dict[str, Any] = {"options": options(endpoint, tls), "compression": compression_of(compression)}
        self._channel: Any = (
            grpc.secure_channel(endpoint.authority, channel_credentials(tls), **how)
            if endpoint.tls
            else grpc.insecure_channel(endpoint.authority, **how)
        )
        self._rpcs: dict[str, Any] = {}
        self._closed = False

    def send(self, request: Request, credentials: Mapping[str, str]) -> Response:
        """See `Transport.send`; the timeout is the call's gRPC deadline."""
        # Without serializers an RPC takes and gives bytes: this one join is the only copy of a tensor here.
        rpc = self._rpcs.get(request.target)
        if rpc is None:
            rpc = self._rpcs[request.target] = self._channel.unary_unary(request.target)
        how = {"timeout": request.timeout, "metadata": metadata(request, credentials)}
        interrupt = interruptible()
        try:
            if interrupt is None:
                body = rpc(b"".join(request.body), **how)
            else:
                call = rpc.future(b"".join(request.body), **how)
                interrupt.watch(call.cancel)
                body = call.result()
        except (grpc.FutureCancelledError, ConnectionAbortedError) as error:
            return closed_response() if self._closed else Response("CANCELLED", message=str(error))
        except grpc.RpcError as error:
            return closed_response() if self._closed else failed_response(error)
        except ValueError:  # "Cannot invoke RPC: Channel closed!"
            if not self._closed:
                raise
            return closed_response()
        return Response("OK", body=body)

    def stream(self, request: Request, credentials: Mapping[str, str]) -> Iterator[Response]:
        """Send the one message of a stream, and yield the responses; closing the iterator cancels the call.

        gRPC's flow control holds the server back while nobody takes the next response.
        """
        if self._closed:
            yield closed_response()
            return
        rpc = self._channel.stream_stream(request.target)
        body = b"".join(request.body)
        call = rpc(iter((body,)), timeout=request.timeout, metadata=metadata(request, credentials))
        watch = IdleWatch(request.idle_s, call.cancel) if request.idle_s else None
        try:
            for message in call if watch is None else _watched(call, watch):
                yield Response("OK", body=message)
        except grpc.RpcError as error:
            expired = watch is not None and watch.expired
            yield (
                closed_response()
                if self._closed
                else idle_response(request.idle_s)
                if expired
                else failed_response(error)
            )
        finally:
            call.cancel()

    def close(self) -> None:
        """See `Transport.close`; calls in flight fail."""
        self._closed = True
        self._channel.close()
