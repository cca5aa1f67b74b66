"""A parser that takes options before, between and after operands, as people write them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose commands may mix options and operands.

    argparse gives operands that may be missing (``?``, ``*``) their defaults at the first operand that it meets, and
    then refuses those after an option as unrecognized.

    A command with the default ``rest`` gets there what comes after ``--``, for another program; to others that is
    operands.
    """

    _mixing = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's own, which calls this for the command and again from within."""
        if self._subparsers is not None or self._mixing or args is None:
            return super().parse_known_args(args, namespace)
        words, passes_on = list(args), self.get_default("rest") is not None
        at = words.index("--") if "--" in words else len(words)
        if passes_on:
            options, extras = self._mixed(words[:at], namespace)
            options.rest = words[at + 1 :]
        elif at < len(words):  # what follows is operands, whatever it looks like
            options, extras = super().parse_known_args(words, namespace)
        else:
            options, extras = self._mixed(words, namespace)
        if extras:
            hint = "; what is meant for the server itself goes after --" if passes_on else ""
            self.error(f"unrecognized arguments: {' '.join(extras)}{hint}")
        return options, []

    def _mixed(self, words: list[str], namespace: Any) -> tuple[argparse.Namespace, list[str]]:
        if not {"-h", "--help"}.isdisjoint(words):  # while options are mixed, operands are hidden and have no defaults
            return super().parse_known_args(words, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(words, namespace)
        finally:
            self._mixing = False
