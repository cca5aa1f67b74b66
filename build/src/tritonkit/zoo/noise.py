"""Random images and token ids, always the same ones: for benchmarks of models whose answers mean nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

COUNT = 320
SIZE = 224
SHORTEST, LONGEST = 8, 256  # tokens
FIRST_ID, LAST_ID = 1000, 29_999  # below are BERT's special and unused tokens


def images() -> Iterator[dict[str, NDArray[np.uint8]]]:
    """Blocks of random colours, 16 pixels wide: uint8 (224, 224, 3). Grain alone looks the same to a network."""
    random = np.random.default_rng(0)
    for _ in range(COUNT):
        blocks = random.integers(0, 256, (SIZE // 16, SIZE // 16, 3), dtype=np.uint8)
        yield {"image": blocks.repeat(16, axis=0).repeat(16, axis=1)}


def texts() -> Iterator[dict[str, NDArray[np.int64]]]:
    """Token ids of random lengths, each length from 8 to 256 alike, and their mask."""
    random = np.random.default_rng(0)
    for _ in range(COUNT):
        yield text(int(random.integers(SHORTEST, LONGEST + 1)), random)


def text(tokens: int, random: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """One text of so many tokens."""
    ids = random.integers(FIRST_ID, LAST_ID + 1, tokens)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
