"""Counts tokens with the tokenizer of a model's directory: of prompts, and of answers whose server does not say."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import tokenizers

from tritonkit.errors import InputError, MissingError
from tritonkit_load.tokens.streams import Answer


class Tokenizer:
    """A model's tokenizer.

    Args:
        directory: Its Hugging Face directory.

    Raises:
        InputError: The directory has none, or it cannot be read.
        MissingError: It has one that only transformers reads, which is not installed.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "tokenizer.json"
        if not path.is_file():
            self._tokenizer = _converted(directory)
            return
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # whatever the library raises: it has no type of its own
            raise InputError(
                f"{path} is no tokenizer: {error}", "copy it again from where the model is from"
            ) from error

    def count(self, text: str) -> int:
        """Tokens of a prompt, with those that the tokenizer adds to any text."""
        return len(self._tokenizer.encode(text).ids)

    def added(self, text: str) -> int:
        """Tokens of a text in the middle of others."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def split(self, pieces: Sequence[str]) -> list[int]:
        """How many tokens of the whole text end in each of its pieces."""
        ends = [end for _, end in self._tokenizer.encode("".join(pieces), add_special_tokens=False).offsets]
        until = list(accumulate(map(len, pieces)))
        counts = [0] * len(pieces)
        for end in ends:
            counts[min(bisect_left(until, end), len(counts) - 1)] += 1
        return counts


def counted(answers: Iterable[Answer], tokenizer: Tokenizer) -> list[Answer]:
    """The answers, with the tokens of those whose server did not say how many there were.

    A piece in which no token ends counts as none: it is the beginning of one.
    """
    return [
        replace(
            answer,
            arrivals=tuple(
                (at, count) for (at, _), count in zip(answer.arrivals, tokenizer.split(answer.pieces), strict=True)
                if count
            ),
            pieces=(),
        ) if answer.pieces else answer
        for answer in answers
    ]  # fmt: skip


def _converted(directory: Path) -> Any:
    """The tokenizer of a directory without a ``tokenizer.json``, by transformers."""
    try:
        import transformers
    except ImportError:
        raise MissingError(
            f"{directory} has no tokenizer.json, and transformers, which could make one, is not installed",
            "pip install transformers, or add the file",
        ) from None
    try:
        return transformers.AutoTokenizer.from_pretrained(directory).backend_tokenizer
    except Exception as error:  # transformers raises what it likes
        raise InputError(
            f"{directory} has no tokenizer that can be read: {error}", "add its tokenizer.json beside config.json"
        ) from error
