"""Sends calls over a grpc.aio channel; knows no message and raises no error of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc

from ._calls import Outgoing, Reply, closed, idle
from ._endpoint import Endpoint
from ._grpc import channel_credentials, compression_of, failed, metadata, options
from ._security import TLS


class GrpcAioTransport:
    """The gRPC side of `_calls.AsyncTransport`; belongs to the event loop of its first call."""

    def __init__(self, endpoint: Endpoint, tls: TLS | None, compression: str | None) -> None:
        self._made_of = (endpoint, tls, compression)
        self._channel: Any = None
        self._rpcs: dict[str, Any] = {}
        self._closed = False

    async def send(self, outgoing: Outgoing, credentials: Mapping[str, str]) -> Reply:
        """See `AsyncTransport.send`; the timeout is the call's gRPC deadline."""
        if self._closed:
            return closed()
        rpc = self._rpcs.get(outgoing.target)
        if rpc is None:
            rpc = self._rpcs[outgoing.target] = self._open().unary_unary(outgoing.target)
        try:
            body = await rpc(
                b"".join(outgoing.body), timeout=outgoing.timeout, metadata=metadata(outgoing, credentials)
            )
        except grpc.RpcError as error:
            return closed() if self._closed else failed(error)
        except asyncio.CancelledError:
            if not self._closed or _is_cancelled():
                raise
            return closed()
        return Reply("OK", body=body)

    async def stream(self, outgoing: Outgoing, credentials: Mapping[str, str]) -> AsyncIterator[Reply]:
        """See `GrpcTransport.stream`."""
        if self._closed:
            yield closed()
            return
        rpc = self._open().stream_stream(outgoing.target)
        call = rpc(iter((b"".join(outgoing.body),)), timeout=outgoing.timeout, metadata=metadata(outgoing, credentials))
        try:
            messages = aiter(call)
            while True:
                try:
                    message = await asyncio.wait_for(anext(messages), outgoing.idle_s)
                except StopAsyncIteration:
                    return
                except asyncio.TimeoutError:  # noqa: UP041 -- another class before Python 3.11
                    yield closed() if self._closed else idle(outgoing.idle_s)
                    return
                yield Reply("OK", body=message)
        except grpc.RpcError as error:
            yield closed() if self._closed else failed(error)
        except asyncio.CancelledError:
            if not self._closed or _is_cancelled():
                raise
            yield closed()
        finally:
            call.cancel()

    async def close(self) -> None:
        """See `Transport.close`; calls in flight fail."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    def _open(self) -> Any:
        # Only here, inside a running loop: grpc.aio ties a channel to the loop that it is made in.
        if self._channel is None:
            endpoint, tls, compression = self._made_of
            how: dict[str, Any] = {"options": options(endpoint, tls), "compression": compression_of(compression)}
            self._channel = (
                grpc.aio.secure_channel(endpoint.authority, channel_credentials(tls), **how)
                if endpoint.tls
                else grpc.aio.insecure_channel(endpoint.authority, **how)
            )
        return self._channel


def _is_cancelled() -> bool:
    """Whether it is the task that is cancelled: a channel that is closed ends its calls with the same exception."""
    task = asyncio.current_task()
    cancelling = getattr(task, "cancelling", None)  # of Python 3.11; before, nobody can tell
    return cancelling is not None and cancelling() > 0
