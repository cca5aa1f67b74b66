"""Real text: the paragraphs of Python's own language reference, tokenized for all-MiniLM-L6-v2."""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tritonkit.zoo import all_minilm_l6_v2

MAX_TOKENS = 256  # the model card's limit; longer texts are cut
BUCKET = 16  # texts are padded to multiples of this: Triton batches only requests of equal shapes


@cache
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_str(all_minilm_l6_v2.tokenizer().read_text(encoding="utf-8"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


def tokenize(texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Texts to the model's inputs, padded to the next multiple of ``BUCKET`` that holds the longest.

    Returns:
        ``input_ids`` and ``attention_mask``, int64 (texts, tokens).
    """
    encoded = [_tokenizer().encode(text) for text in texts]
    longest = max(len(encoding.ids) for encoding in encoded)
    ids = np.zeros((len(texts), -(-longest // BUCKET) * BUCKET), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, encoding in enumerate(encoded):
        ids[row, : len(encoding.ids)] = encoding.ids
        mask[row, : len(encoding.ids)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def paragraphs() -> list[str]:
    """English prose of 20 words or more, without repetitions."""
    topics: dict[str, str] = pydoc_data.topics.topics
    texts = (" ".join(part.split()) for text in topics.values() for part in text.split("\n\n"))
    return [text for text in dict.fromkeys(texts) if len(text.split()) >= 20]


def samples() -> Iterator[dict[str, NDArray[np.int64]]]:
    """Paragraphs as token ids, each of its own length, rounded up to the next multiple of ``BUCKET``."""
    for text in paragraphs():
        yield {name: array[0] for name, array in tokenize([text]).items()}
