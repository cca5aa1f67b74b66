"""What the KV cache of a model takes: bytes a token, bytes of a sequence, and the blocks in which vLLM hands it out.

The arithmetic is that of vLLM's ``v1/kv_cache_interface.py`` and ``v1/core/kv_cache_utils.py`` (0.26 to 0.32): a layer
keeps keys and values of each KV head, or one latent where attention is multi-head latent (MLA), and not more tokens
than its window. What is left of a GPU's memory for it is for :mod:`tritonkit.advisor.memory`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tritonkit.llm.directory import Directory

BYTES = {"fp8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
STATELESS = frozenset({"linear_attention", "mamba", "conv", "recurrent", "lightning_attention"})
_WINDOWED = frozenset({"sliding_attention", "chunked_attention"})
_EVERY = {"gemma3_text": 6, "gemma3": 6, "cohere2": 4}  # each N-th layer sees all (transformers' defaults)
BLOCK_SIZE = 16  # tokens of a block where nothing else is said: vLLM's CacheConfig.DEFAULT_BLOCK_SIZE
MLA_BLOCK_SIZE = 64  # of MLA: the block of FlashMLA, which vLLM takes on Hopper (v1/attention/backends/mla/flashmla.py)
# DeepSeek-V3.2 (vLLM 0.26 to 0.32): an fp8 latent has 656 bytes, as its rotary part stays in bf16 and has scales
# (fp8_ds_mla); the sparse attention's indexer keeps a byte a number and a scale of 4 bytes for each 128.
_SPARSE_FP8_BYTES = 656
_INDEX_SCALED = 128


@dataclass(frozen=True)
class Layers:
    """Layers of one kind: how many, bytes that each keeps of a token, and its window in tokens; None sees all.

    ``chunked`` windows begin at multiples of their size (Llama 4) instead of sliding along.
    """

    count: int
    bytes_per_token: int
    window: int | None
    chunked: bool = False

    def blocks(self, tokens: int, in_flight: int, block_size: int) -> int:
        """Blocks that vLLM sets aside for one sequence of so many tokens in one group of such layers.

        A window's blocks are freed only after the tokens of a step were processed, so those of the steps in flight are
        kept beside it; a sliding window may begin in the middle of a block, which is one block more.

        Args:
            tokens: Of the sequence.
            in_flight: Tokens of the steps in flight: ``max_num_batched_tokens``, twice that with asynchronous
                scheduling in vLLM 0.32.
            block_size: Tokens of a block.
        """
        if self.window is None:
            return math.ceil(tokens / block_size)
        if self.chunked:
            return math.ceil(min(self.window + in_flight, tokens) / block_size)
        return math.ceil(min(self.window - 1 + in_flight, tokens) / block_size) + 1


@dataclass(frozen=True)
class Blocks:
    """How vLLM shares the memory of the KV cache out: one pool of blocks of one size, for all groups of layers.

    Layers of one kind are divided into groups of the same number of layers, and a block holds the tokens of one group.
    Where the numbers do not fit, groups are padded, and a sequence takes more than its bytes.

    Attributes:
        block_size: Tokens of a block.
        block_bytes: Bytes of a block on one GPU.
        groups: A kind of layers, and how many groups it is divided into.
    """

    block_size: int
    block_bytes: int
    groups: tuple[tuple[Layers, int], ...]

    def sequence_blocks(self, tokens: int, in_flight: int) -> int:
        """Blocks that vLLM sets aside for one sequence; see :meth:`Layers.blocks`."""
        return sum(count * layers.blocks(tokens, in_flight, self.block_size) for layers, count in self.groups)

    def sequence_bytes(self, tokens: int, in_flight: int) -> int:
        """Bytes of those blocks on one GPU."""
        return self.block_bytes * self.sequence_blocks(tokens, in_flight)

    def count(self, memory_bytes: int) -> int:
        """Blocks that so much memory has room for."""
        return max(0, memory_bytes) // self.block_bytes if self.block_bytes else 0

    def sequences(self, memory_bytes: int, tokens: int, in_flight: int) -> float:
        """Sequences of so many tokens that fit at the same time: vLLM's "Maximum concurrency"."""
        return self.count(memory_bytes) / self.sequence_blocks(tokens, in_flight) if self.block_bytes else math.inf

    def tokens(self, memory_bytes: int, max_model_len: int, in_flight: int) -> int:
        """Tokens that fit, in sequences of ``max_model_len``: vLLM's "GPU KV cache size"."""
        return int(self.sequences(memory_bytes, max_model_len, in_flight) * max_model_len) if self.block_bytes else 0

    def longest(self, memory_bytes: int, in_flight: int, limit: int) -> int:
        """The longest sequence, up to a limit, of which one fits; vLLM keeps one block for itself. 0: not one token."""
        usable = self.count(memory_bytes) - 1
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.sequence_blocks(middle, in_flight) <= usable else (low, middle - 1)
        return low


@dataclass(frozen=True)
class KvCache:
    """The KV cache of a model on one GPU.

    Attributes:
        layers: The layers that have one, by kind.
        kind: ``mha``, ``gqa``, ``mqa`` or ``mla``.
    """

    layers: tuple[Layers, ...]
    kind: str

    def blocks(self, block_size: int | None = None) -> Blocks:
        """How vLLM hands the cache out; ``block_size`` is in tokens, vLLM's own where it is None."""
        size = block_size or (MLA_BLOCK_SIZE if self.kind == "mla" else BLOCK_SIZE)
        kinds: dict[tuple[int | None, bool], list[Layers]] = {}
        for layers in self.layers:
            kinds.setdefault((layers.window, layers.chunked), []).append(layers)
        if len(kinds) == 1:  # one group of all layers, whatever each of them keeps
            (alike,) = kinds.values()
            return Blocks(size, size * sum(layers.count * layers.bytes_per_token for layers in alike), ((alike[0], 1),))
        counts = [sum(layers.count for layers in alike) for alike in kinds.values()]
        least, most = min(counts, default=0), max(counts, default=0)
        # vLLM: as many layers as the rarer kind has, or as the commoner where it has not half as many again.
        group = most if most < 1.5 * least else least
        page = max((layers.bytes_per_token for layers in self.layers), default=0)
        groups = tuple(
            (alike[0], math.ceil(count / group)) for alike, count in zip(kinds.values(), counts, strict=True)
        )
        return Blocks(size, size * page * group, groups)

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
    extra = 0
    if rank:
        values = rank + (directory.number("qk_rope_head_dim") or 0)
        kind = "mla"
        if directory.number("index_topk"):
            index = directory.needed("index_head_dim")
            extra = index + index // _INDEX_SCALED * 4
    else:
        heads = directory.kv_heads
        values = 2 * directory.head_dim * max(1, heads // tensor_parallel_size)
        kind = "mha" if heads == directory.heads else "mqa" if heads == 1 else "gqa"
    chunked = "chunked_attention" in (directory.text.get("layer_types") or ()) or directory.model_type == "llama4_text"
    windows = Counter(_windows(directory))
    kept = _SPARSE_FP8_BYTES if extra and dtype == "fp8" else values * BYTES[dtype]
    layers = [
        Layers(count, kept, window, chunked and window is not None) for window, count in windows.items() if window != 0
    ]
    if extra:
        layers.append(Layers(directory.layers, extra, None))
    return KvCache(tuple(layers), kind)


def _windows(directory: Directory) -> list[int | None]:
    """The window of each layer; 0 for one without a KV cache."""
    layers = directory.layers
    window = directory.number("sliding_window", "attention_chunk_size")
    if window is None or window <= 0 or directory.text.get("use_sliding_window") is False:
        window = None
    kinds = directory.text.get("layer_types") or directory.text.get("layers_block_type")
    if isinstance(kinds, list) and len(kinds) == layers:
        return [0 if kind in STATELESS else window if kind in _WINDOWED else None for kind in kinds]
    if window is None:
        return [None] * layers
    kind = directory.model_type
    every = directory.number("sliding_window_pattern", "_sliding_window_pattern") or _EVERY.get(kind)
    if every:
        return [None if (layer + 1) % every == 0 else window for layer in range(layers)]
    if kind in {"gemma2", "gpt_oss"}:  # one layer with a window, one without
        return [window if layer % 2 == 0 else None for layer in range(layers)]
    if kind == "llama4_text":  # "no_rope_layers" has a 1 for each layer that sees a chunk
        local = directory.text.get("no_rope_layers") or [int((layer + 1) % 4 != 0) for layer in range(layers)]
        return [window if chunk else None for chunk in local]
    if kind.startswith("qwen"):
        first = directory.number("max_window_layers") or 0
        return [None if layer < first else window for layer in range(layers)]
    return [window] * layers
