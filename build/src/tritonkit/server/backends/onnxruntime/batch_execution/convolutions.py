"""Whether a graph has convolutions, which onnxruntime's CUDA provider prepares for one shape at a time."""

from __future__ import annotations

import mmap
from pathlib import Path

_OPERATOR_TYPE = b"\x22"  # the tag of `op_type`, field 4 of a NodeProto, before its length (onnx.proto)
_CONVOLUTIONS = (b"Conv", b"ConvTranspose", b"FusedConv", b"NhwcConv", b"ConvInteger", b"DeformConv")


def has_convolutions(graph: Path) -> bool:
    """Whether any node of an ONNX file is a convolution: its type's bytes are looked for, as no parser is at hand.

    Weights that hold the same bytes by chance only cost sessions.
    """
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(_OPERATOR_TYPE + bytes([len(name)]) + name) >= 0 for name in _CONVOLUTIONS)
