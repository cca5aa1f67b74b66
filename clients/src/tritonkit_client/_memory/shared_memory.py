"""Inference through shared memory: which tensors, which servers, when registered. Does no network I/O.

A tensor is copied once into a segment instead of several times through sockets. Whether a segment is system memory or a
GPU's, only `segments` and `cuda` know.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .._protocol.calls import Call, InferRequest, Memory, Operation, RequestedOutput, Tensor, Wire
from .._protocol.errors import (
    ConnectionFailed,
    InvalidInput,
    ModelNotReady,
    Origin,
    ServerBusy,
    ServerError,
    TritonkitClientError,
)
from .._protocol.metadata import ModelMetadata
from .._protocol.tensors import DTYPES, Array, decode
from .cuda import CudaSegment, Gpu, on_host
from .segments import FileSegment, Segment, Segments, is_orphan

if TYPE_CHECKING:
    from .._engine.servers import Server

logger = logging.getLogger("tritonkit_client")

# Triton's message for a region that it lost in a restart.
_LOST = "unable to find shared memory region"
# Its message for a region that it has already.
_THERE = "already in manager"
# Its message for an output that is larger than the last time, and does not fit into its segment.
_GROWN = "shared memory size specified"
# Triton refuses to unregister a region until it has put away the request whose response it has just sent. On a busy
# machine that takes as long as several such calls: so many are made.
_UNREGISTERINGS = 20


@dataclass(frozen=True)
class SharedMemory:
    """Pass large tensors to servers on this machine through ``/dev/shm``.

    Servers elsewhere, and those that cannot see this machine's ``/dev/shm`` (a container without ``--ipc=host``),
    are sent them as usual.

    Attributes:
        min_bytes: Smaller tensors travel with the request.
        capacity_bytes: What all segments of a client may take; beyond it tensors travel with the request.
    """

    min_bytes: int = 256 * 1024
    capacity_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        _check_sizes(self)


@dataclass(frozen=True)
class CudaSharedMemory:
    """Pass large tensors, and arrays on a GPU, to servers on this machine through a GPU's memory.

    Needs ``pip install 'tritonkit-client[cuda]'``. Servers elsewhere, and those that cannot open the memory (no GPU, or
    a container of its own IPC namespace), are sent tensors as usual, copied from the GPU first.

    Attributes:
        device_id: Which GPU: its number for this process, and the same for the servers.
        min_bytes: Smaller tensors of the host travel with the request; arrays on a GPU never do.
        capacity_bytes: What all segments of a client may take; beyond it tensors travel with the request.
    """

    device_id: int = 0
    min_bytes: int = 256 * 1024
    capacity_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        _check_sizes(self)


@dataclass
class _RequestSegments:
    """The segments of one request by tensor: ``lent``: the outputs that the caller has; ``over``: whether the server is
    done with the request.
    """

    inputs: dict[str, Segment]
    outputs: dict[str, Segment]
    lent: set[str] = field(default_factory=set)
    over: bool = False


class Arena:
    """The segments of one client, and which servers know them.

    Args:
        settings: Which memory, and how much of it.
        pick: The server that would get the next request for a model.

    Raises:
        InvalidInput: There is no such memory here.
    """

    def __init__(self, settings: SharedMemory | CudaSharedMemory, pick: Callable[[str], Server]) -> None:
        self._settings = settings
        self._pick = pick
        self.memory: Memory = "system"
        make: Callable[[str, int], Segment] = FileSegment
        if isinstance(settings, CudaSharedMemory):
            self.memory, make = "cuda", partial(CudaSegment, Gpu(settings.device_id))
        self._segments = Segments(settings.capacity_bytes, make)
        self._known: dict[Server, set[str]] = {}
        self._cannot: set[Server] = set()
        # How large outputs were the last time, by model, version and the shapes of inputs.
        self._sizes: dict[Any, dict[str, int]] = {}

    def infer(
        self, wire: Wire, metadata: ModelMetadata, request: InferRequest, origin: Origin
    ) -> Operation[dict[str, Array]]:
        """One inference, through shared memory where that is possible and worth it."""
        shareable = any(self._is_shareable(tensor) for tensor in request.inputs)
        key = (request.model, request.version, tuple(tensor.shape for tensor in request.inputs))
        sizes = {name: size for name, size in self._sizes.get(key, {}).items() if size >= self._settings.min_bytes}
        if shareable or sizes:
            server = self._pick(request.model)
            if server not in self._cannot and _is_local(server):
                try:
                    outputs = yield from self._infer_through_segments(wire, metadata, request, origin, server, sizes)
                except (ConnectionFailed, ServerBusy, ModelNotReady):
                    pass  # this server cannot now: send it without shared memory to any other
                else:
                    if outputs is not None:
                        return self._note_sizes(key, outputs)
        sent_outputs: dict[str, Array] = yield wire.infer(on_host(request), origin)
        return self._note_sizes(key, sent_outputs)

    def closing(self, wire: Wire, servers: Sequence[Server]) -> Iterator[Operation[None]]:
        """Unregister every region on every server, and remove the segments."""

        def forget(server: Server, names: set[str]) -> Operation[None]:
            # A region that a late request may still use stays registered; a later process's client unregisters it.
            ours = sorted(names - self._segments.in_quarantine())
            for name in ours * _UNREGISTERINGS:
                if name in names:
                    try:
                        yield from self._unregister(wire, name, server)
                        names.discard(name)
                    except ConnectionFailed:
                        return names.clear()  # the server is gone, and what it had open with it
                    except TritonkitClientError:
                        continue

        for server, names in self._known.items():
            if server in servers and names:
                yield forget(server, names)
        self._segments.close(registered=set[str]().union(*self._known.values()))

    def _is_shareable(self, tensor: Tensor) -> bool:
        """Whether an input is worth shared memory."""
        return tensor.device is not None or len(tensor.data) >= self._settings.min_bytes

    def _note_sizes(self, key: Any, outputs: dict[str, Array]) -> dict[str, Array]:
        if len(self._sizes) > 1000:  # shapes that never come back
            self._sizes.clear()
        self._sizes[key] = {name: array.nbytes for name, array in outputs.items() if array.dtype != object}
        return outputs

    def _infer_through_segments(
        self,
        wire: Wire,
        metadata: ModelMetadata,
        request: InferRequest,
        origin: Origin,
        server: Server,
        sizes: dict[str, int],
    ) -> Generator[Call[Any], Any, dict[str, Array] | None]:
        """The inference through segments; None where it must travel with the request."""
        names = [output.name for output in request.outputs] or [spec.name for spec in metadata.outputs]
        use = _RequestSegments(
            self._take({tensor.name: tensor.size for tensor in request.inputs if self._is_shareable(tensor)}),
            self._take({name: sizes[name] for name in names if name in sizes}),
        )
        try:
            outputs = yield from self._send(wire, self._place_tensors(request, names, use), origin, server, use)
            use.over = True
            return outputs
        except (InvalidInput, ServerError) as error:
            use.over = True  # an error of the server's: it is done with the request
            if _GROWN in error.message.lower():
                return None
            raise
        finally:
            # An output that was read is an array now: its segment comes back when the array is collected.
            rest = [*use.inputs.values(), *(unread for name, unread in use.outputs.items() if name not in use.lent)]
            if use.over:
                for segment in rest:
                    self._segments.give(segment)
            else:
                self._segments.quarantine(rest)

    def _send(
        self, wire: Wire, placed: InferRequest, origin: Origin, server: Server, use: _RequestSegments
    ) -> Generator[Call[Any], Any, dict[str, Array] | None]:
        segments = [*use.inputs.values(), *use.outputs.values()]
        if not (yield from self._register(wire, segments, server)):
            return None
        call = replace(wire.infer(placed, origin), server=server)
        try:
            outputs: dict[str, Array] = yield call
            return outputs
        except (InvalidInput, ServerError) as error:
            if _LOST not in error.message.lower():
                raise
        self._known[server].difference_update(segment.name for segment in segments)
        if not (yield from self._register(wire, segments, server)):
            return None
        outputs = yield call
        return outputs

    def _take(self, sizes: dict[str, int]) -> dict[str, Segment]:
        """A segment for each of these tensors that there is memory for."""
        segments = {name: self._segments.take(size) for name, size in sizes.items()}
        return {name: segment for name, segment in segments.items() if segment is not None}

    def _place_tensors(self, request: InferRequest, names: Sequence[str], use: _RequestSegments) -> InferRequest:
        """The request with its large tensors in shared memory instead of in its bytes."""

        def read(name: str, datatype: str, shape: tuple[int, ...]) -> Array:
            size = math.prod(shape) * DTYPES[datatype].itemsize
            use.lent.add(name)
            return decode(self._segments.lend(use.outputs[name], size), datatype, shape)

        inputs = []
        for tensor in request.inputs:
            segment = use.inputs.get(tensor.name)
            if segment is not None:
                segment.write(tensor)
                tensor = replace(tensor, data=b"", device=None, parameters=_placement(segment, tensor.size))
            inputs.append(tensor)
        outputs = tuple(
            RequestedOutput(name, _placement(use.outputs[name], use.outputs[name].size))
            if name in use.outputs
            else RequestedOutput(name)
            for name in names
        )
        return on_host(replace(request, inputs=tuple(inputs), outputs=outputs, placed=read))

    def _register(self, wire: Wire, segments: Sequence[Segment], server: Server) -> Generator[Call[Any], Any, bool]:
        """Make segments known to a server; False where it cannot see them."""
        if server not in self._known:
            yield from self._forget_orphans(wire, server)
        known = self._known.setdefault(server, set())
        origin = Origin(server.name)
        for segment in segments:
            if segment.name in known:
                continue
            known.add(segment.name)  # before the response: without one, the server may have the region all the same
            try:
                yield replace(wire.register(segment.region, origin), server=server)
            except (InvalidInput, ServerError) as error:
                if _THERE in error.message.lower():
                    continue
                known.discard(segment.name)
                logger.warning("%s cannot use %s: %s", server.name, segment.region.place, error.message)
                self._cannot.add(server)
                return False
        return True

    def _forget_orphans(self, wire: Wire, server: Server) -> Generator[Call[Any], Any, None]:
        """Unregister what clients that died have left on a server of this machine."""
        try:
            names: tuple[str, ...] = yield replace(wire.regions(self.memory, Origin(server.name)), server=server)
        except (InvalidInput, ServerError):
            return  # the server cannot list regions: then it has none of this machine's clients
        for name in names:
            if is_orphan(name):
                with contextlib.suppress(TritonkitClientError):
                    yield from self._unregister(wire, name, server)

    def _unregister(self, wire: Wire, name: str, server: Server) -> Generator[Call[Any], Any, None]:
        yield replace(wire.unregister(name, self.memory, Origin(server.name)), server=server)


def _check_sizes(settings: SharedMemory | CudaSharedMemory) -> None:
    if settings.min_bytes < 1 or settings.capacity_bytes < settings.min_bytes:
        raise InvalidInput(f"{settings} has a number out of range", "give positive sizes, the second one larger")


def _placement(segment: Segment, size: int) -> dict[str, str | int]:
    return {"shared_memory_region": segment.name, "shared_memory_byte_size": size}


def _is_local(server: Server) -> bool:
    """Whether a server is on this machine, as far as its address tells."""
    host = server.endpoint.host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
