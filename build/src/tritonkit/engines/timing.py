"""TensorRT's timing cache on disk: what kernels took, so that the next build of a similar graph measures less.

One file for each builder version and compute capability, with a checksum in front: TensorRT is never handed a file
that was cut short, and one that it refuses is replaced.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritonkit import atomic, store

_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass
class Cache:
    """A cache in use.

    Attributes:
        path: Its file.
        notes: What was wrong with the file, as sentences.
        handle: TensorRT's object, which must outlive the build.
    """

    path: Path
    notes: list[str] = field(default_factory=list)
    handle: Any = None


def path(builder: str, version: str, capability: tuple[int, int]) -> Path:
    """Where the cache of a builder and a compute capability lies."""
    return store.home() / "timing" / f"{builder}-{version}-sm{capability[0]}{capability[1]}.cache"


def attach(config: Any, place: Path) -> Cache:
    """Give a build the cache at ``place``, or an empty one.

    Args:
        config: The build's ``IBuilderConfig``.
        place: From :func:`path`.
    """
    cache = Cache(place)
    if stored := _read(cache):
        cache.handle = config.create_timing_cache(stored)
        if config.set_timing_cache(cache.handle, ignore_mismatch=False):
            return cache
        cache.notes.append(f"the timing cache {place} was made on another GPU or version and is begun anew")
    cache.handle = config.create_timing_cache(b"")
    config.set_timing_cache(cache.handle, ignore_mismatch=False)
    return cache


def _read(cache: Cache) -> bytes:
    try:
        data = cache.path.read_bytes()
    except OSError:
        return b""
    digest, rest = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(rest).digest() != digest:
        cache.notes.append(f"the timing cache {cache.path} is damaged and is begun anew")
        return b""
    return rest


def keep(config: Any, cache: Cache) -> None:
    """Write the cache of a finished build."""
    timing_cache = config.get_timing_cache()
    if timing_cache is not None:
        data = bytes(timing_cache.serialize())
        atomic.write(cache.path, hashlib.sha256(data).digest() + data)
