"""What NVIDIA's Triton images carry, and what that can read.

Both tables are bounds: an image between two known ones has at least the older one's onnxruntime and at most the
newer one's.
"""

from __future__ import annotations

from dataclasses import dataclass

Image = tuple[int, int]

# Image → onnxruntime (release notes and build.py of triton-inference-server/server). 26.06 has 1.24 in one variant and
# 1.26 in another.
_ONNXRUNTIME: dict[Image, tuple[str, str]] = {
    (24, 10): ("1.19", "1.19"),
    (26, 4): ("1.24", "1.24"),
    (26, 6): ("1.24", "1.26"),
    (26, 8): ("1.28", "1.28"),
}
# onnxruntime → newest file format (IR) and newest opset that it loads: a Relu stamped with each was given to each
# release from PyPI (the last patch of every minor).
_LIMITS: dict[str, tuple[int, int]] = {
    "1.16": (9, 19), "1.17": (9, 20), "1.18": (10, 21), "1.19": (10, 21), "1.20": (10, 21), "1.21": (10, 22),
    "1.22": (10, 22), "1.23": (11, 23), "1.24": (13, 25), "1.25": (13, 26), "1.26": (13, 26), "1.27": (13, 26),
    "1.28": (13, 26), "1.29": (13, 26), "1.30": (13, 26), "1.31": (13, 26),
}  # fmt: skip
# The batcher's lost wake-up is fixed from here on (docs/decisions/0003).
BATCHER_FIXED: Image = (26, 8)
# The first image whose TensorRT has no precision flags.
TENSORRT_11: Image = (26, 6)


@dataclass(frozen=True)
class Limits:
    """What an image's onnxruntime loads for sure, and what it may load at most; None where nothing is known.

    Attributes:
        release: onnxruntime's release, or the two it lies between.
        sure: Newest IR and opset that it certainly loads.
        most: Newest that it can load.
    """

    release: str
    sure: tuple[int, int] | None
    most: tuple[int, int] | None


# Of the backend tritonkit_onnxruntime, whatever the image (build/src/tritonkit/server/requirements-cuda.txt).
OWN = Limits("1.31", _LIMITS["1.31"], _LIMITS["1.31"])


def limits(image: Image) -> Limits:
    """The bounds for one image."""
    older = [_ONNXRUNTIME[known][0] for known in sorted(_ONNXRUNTIME) if known <= image]
    newer = [_ONNXRUNTIME[known][1] for known in sorted(_ONNXRUNTIME) if known >= image]
    low = older[-1] if older else ""
    high = newer[0] if newer else ""
    release = low if low == high else f"{low or 'older'} to {high or 'newer'}"
    return Limits(release, _LIMITS.get(low), _LIMITS.get(high))
