"""A parser that takes options before, between and after operands, suggests what was meant, and shows examples.

Every command line of the project is made of it, but the client's, which is a package of its own.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from tritonkit import __version__

CUTOFF = 0.7  # of difflib's ratio: two letters that changed places pass, --json for --version does not


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose commands may mix options and operands.

    argparse gives operands that may be missing (``?``, ``*``) their defaults at the first operand that it meets, and
    then refuses those after an option as unrecognized.

    A command with the default ``rest`` gets there what comes after ``--``, for another program; to others that is
    operands.

    Args:
        arguments: As argparse's own.
        examples: Command lines that work as they stand, shown below the help.
        options: As argparse's own.
    """

    _mixing = False

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = tuple(examples)
        self.add_argument("--version", action="version", version=f"tritonkit {__version__}")

    def format_help(self) -> str:
        """As argparse's own, with the examples below, unfolded, so that they can be copied."""
        if not self.examples:
            return super().format_help()
        title = "examples" if len(self.examples) > 1 else "example"
        return f"{super().format_help()}\n{title}:\n" + "".join(f"  {line}\n" for line in self.examples)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's own, which calls this for the command and again from within."""
        words = list(sys.argv[1:] if args is None else args)
        if self._mixing:
            return super().parse_known_args(words, namespace)
        passes_on = self.get_default("rest") is not None
        separator = words.index("--") if "--" in words else len(words)
        hint = "; what is meant for the server itself goes after --" if passes_on else ""
        if self._subparsers is not None:
            self._check_options(list(takewhile(lambda word: word.startswith("-"), words)))
            return super().parse_known_args(words, namespace)
        self._check_options(words[:separator], hint)
        if passes_on:
            options, extras = self._mixed(words[:separator], namespace)
            options.rest = words[separator + 1 :]
        elif separator < len(words):  # what follows is operands, whatever it looks like
            options, extras = super().parse_known_args(words, namespace)
        else:
            options, extras = self._mixed(words, namespace)
        if extras:
            self._refuse(extras, hint)
        return options, []

    def _mixed(self, words: list[str], namespace: Any) -> tuple[argparse.Namespace, list[str]]:
        if not {"-h", "--help"}.isdisjoint(words):  # while options are mixed, operands are hidden and have no defaults
            return super().parse_known_args(words, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(words, namespace)
        finally:
            self._mixing = False

    def _check_options(self, words: Sequence[str], hint: str = "") -> None:
        """Refuse options that nobody knows, where argparse would first miss an operand or another option."""
        unknown = [word for word in words if word.startswith("--") and " " not in word and not self._knows(word)]
        if unknown:
            self._refuse(unknown, hint)

    def _knows(self, word: str) -> bool:
        """Whether an option is known, or the beginning of one, which argparse takes for it."""
        return any(known.startswith(word.partition("=")[0]) for known in self._option_string_actions)

    def _refuse(self, extras: Sequence[str], hint: str = "") -> None:
        options = [word.partition("=")[0] for word in extras if word.startswith("-")]
        near = dict.fromkeys(match for option in options if (match := closest(option, self._option_string_actions)))
        if self._subparsers is not None and not near:
            hint = "; the options of a command stand after it"
        self.error(f"unrecognized arguments: {' '.join(extras)}{did_you_mean(near)}{hint}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            match = closest(str(value), [str(choice) for choice in action.choices or ()])
            raise argparse.ArgumentError(action, f"{error.message}{did_you_mean([match] if match else [])}") from None


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like this one, whatever the case of its letters; empty where none is like it."""
    by_case = {name.lower(): name for name in known}
    return next((by_case[near] for near in difflib.get_close_matches(word.lower(), by_case, n=1, cutoff=CUTOFF)), "")


def did_you_mean(words: Iterable[str]) -> str:
    """The end of a message, with what was probably meant; empty without words."""
    meant = ", ".join(words)
    return f"; did you mean {meant}?" if meant else ""
