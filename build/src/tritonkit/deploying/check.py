"""The result of one check: its name, its state, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "unchecked", "missing"]


@dataclass(frozen=True)
class Check:
    """A finding.

    Attributes:
        name: The subject of the check, in a word or two.
        state: ``missing`` keeps a release from being deployed; ``note`` and ``unchecked`` do not.
        text: The result, as a sentence.
        fix: What to do; empty if there is nothing to do.
    """

    name: str
    state: State
    text: str
    fix: str = ""


def missing(checks: Iterable[Check]) -> list[Check]:
    """The checks that keep a release from being deployed."""
    return [check for check in checks if check.state == "missing"]
