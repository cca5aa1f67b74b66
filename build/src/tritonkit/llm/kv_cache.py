"""What the KV cache of a model takes: bytes a token, and bytes of a sequence where layers see a window only.

The arithmetic is that of vLLM's ``kv_cache_interface.py``: a layer keeps keys and values of each KV head, or one latent
where attention is multi-head latent (MLA), and not more tokens than its window.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tritonkit.llm.directory import Directory

BYTES = {"fp8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
_NONE = frozenset({"linear_attention", "mamba", "conv", "recurrent", "lightning_attention"})
_WINDOWED = frozenset({"sliding_attention", "chunked_attention"})
_EVERY = {"gemma3_text": 6, "gemma3": 6, "cohere2": 4}  # each N-th layer sees all (transformers' defaults)


@dataclass(frozen=True)
class Layers:
    """Layers of one kind: how many, bytes that each keeps of a token, and its window in tokens; None sees all."""

    count: int
    bytes_per_token: int
    window: int | None


@dataclass(frozen=True)
class KvCache:
    """The KV cache of a model on one GPU.

    Attributes:
        layers: The layers that have one, by kind.
        kind: ``mha``, ``gqa``, ``mqa`` or ``mla``.
    """

    layers: tuple[Layers, ...]
    kind: str

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token, where every layer keeps it."""
        return sum(group.count * group.bytes_per_token for group in self.layers)

    def sequence_bytes(self, tokens: int) -> int:
        """Bytes of one sequence of so many tokens."""
        return sum(
            group.count * group.bytes_per_token * (tokens if group.window is None else min(tokens, group.window))
            for group in self.layers
        )

    def as_json(self) -> dict[str, Any]:
        """As a passport has it."""
        groups = [
            {"layers": group.count, "bytes_per_token": group.bytes_per_token, "window": group.window}
            for group in self.layers
        ]
        return {"kind": self.kind, "bytes_per_token": self.bytes_per_token, "groups": groups}


def of(directory: Directory, dtype: str = "bf16", tensor_parallel_size: int = 1) -> KvCache:
    """The KV cache of a directory's model, on each of its GPUs.

    Args:
        directory: The model's.
        dtype: What it is kept in: ``fp8``, ``fp16``, ``bf16`` or ``fp32``.
        tensor_parallel_size: GPUs that share the heads. Each has one at least, and MLA's latent whole.

    Raises:
        SourceError: The configuration lacks a field.
    """
    rank = directory.number("kv_lora_rank")
    if rank:
        values = rank + (directory.number("qk_rope_head_dim") or 0)
        kind = "mla"
    else:
        heads = directory.kv_heads
        values = 2 * directory.head_dim * max(1, heads // tensor_parallel_size)
        kind = "mha" if heads == directory.heads else "mqa" if heads == 1 else "gqa"
    windows = Counter(_windows(directory))
    kept = values * BYTES[dtype]
    return KvCache(tuple(Layers(count, kept, window) for window, count in windows.items() if window != 0), kind)


def _windows(directory: Directory) -> list[int | None]:
    """The window of each layer; 0 for one without a KV cache."""
    layers = directory.layers
    window = directory.number("sliding_window", "attention_chunk_size")
    if window is None or window <= 0 or directory.text.get("use_sliding_window") is False:
        window = None
    kinds = directory.text.get("layer_types") or directory.text.get("layers_block_type")
    if isinstance(kinds, list) and len(kinds) == layers:
        return [0 if kind in _NONE else window if kind in _WINDOWED else None for kind in kinds]
    if window is None:
        return [None] * layers
    kind = directory.model_type
    every = directory.number("sliding_window_pattern", "_sliding_window_pattern") or _EVERY.get(kind)
    if every:
        return [None if (layer + 1) % every == 0 else window for layer in range(layers)]
    if kind in {"gemma2", "gpt_oss"}:  # one layer with a window, one without
        return [window if layer % 2 == 0 else None for layer in range(layers)]
    if kind.startswith("qwen"):
        first = directory.number("max_window_layers") or 0
        return [None if layer < first else window for layer in range(layers)]
    return [window] * layers
