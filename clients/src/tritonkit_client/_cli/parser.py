"""The command line's parser: suggests the word that was meant, and shows examples below its help.

`tritonkit` has the same suggestions; they are written twice, as neither package needs the other.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from itertools import takewhile
from typing import Any

CUTOFF = 0.7  # of difflib's ratio: two letters that changed places pass, --json for --version does not


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` with examples (command lines that work as they stand) and ``--version``."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = tuple(examples)
        if self.add_help:  # not a parent of other parsers
            version = f"tritonkit-client {metadata.version('tritonkit-client')}"
            self.add_argument("--version", action="version", version=version)

    def format_help(self) -> str:
        """As argparse's own, with the examples below, unfolded, so that they can be copied."""
        title = "examples" if len(self.examples) > 1 else "example"
        lines = "".join(f"  {line}\n" for line in self.examples)
        return super().format_help() + (f"\n{title}:\n{lines}" if lines else "")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's own, but an unknown option is reported before a missing operand."""
        words = list(sys.argv[1:] if args is None else args)
        leading = list(takewhile(lambda word: word.startswith("-"), words)) if self._subparsers else words
        unknown = [word for word in leading if word.startswith("--") and word != "--" and not self._knows(word)]
        if unknown:
            self.refuse(unknown)
        return super().parse_known_args(words, namespace)

    def _knows(self, word: str) -> bool:
        """Whether a word is a known option, or the beginning of one, which argparse accepts."""
        return any(known.startswith(word.partition("=")[0]) for known in self._option_string_actions)

    def refuse(self, words: Sequence[str]) -> None:
        """Exit with an error that names the unknown words and the option that was probably meant."""
        options = [word.partition("=")[0] for word in words if word.startswith("-")]
        near = [match for option in options if (match := closest(option, self._option_string_actions))]
        hint = "; the options of a verb stand after it" if self._subparsers and not near else ""
        self.error(f"unrecognized arguments: {' '.join(words)}{did_you_mean(near)}{hint}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            match = closest(str(value), [str(choice) for choice in action.choices or ()])
            raise argparse.ArgumentError(action, f"{error.message}{did_you_mean([match] if match else [])}") from None


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that is most similar; empty where none is."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=CUTOFF)), "")


def did_you_mean(words: Sequence[str]) -> str:
    """The end of a message, with the words that were probably meant; empty without words."""
    return f"; did you mean {', '.join(words)}?" if words else ""
