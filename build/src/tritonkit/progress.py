"""Tells a person what a long step is doing: a bar on a terminal, one plain line a step elsewhere.

Everything goes to standard error, so that ``--json`` output stays clean.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Steps:
    """The steps of one task; call :meth:`next` as each begins."""

    def next(self, text: str) -> None:
        """Begin the next step."""


class _PlainSteps(Steps):
    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done, self.start = title, total, 0, time.monotonic()

    def next(self, text: str) -> None:
        self.done += 1
        seconds = time.monotonic() - self.start
        print(f"[{self.done}/{self.total}] {self.title}: {text} ({seconds:.1f} s)", file=sys.stderr, flush=True)  # noqa: T201


class _BarSteps(Steps):
    def __init__(self, progress: Progress, title: str, total: int) -> None:
        self.progress, self.title, self.done = progress, title, 0
        self.task = progress.add_task(title, total=total)

    def next(self, text: str) -> None:
        self.progress.update(self.task, completed=self.done, description=f"{self.title}: {text}")
        self.done += 1


@contextmanager
def steps(title: str, total: int) -> Iterator[Steps]:
    """Show a task of ``total`` steps while the block runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainSteps(title, total)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield _BarSteps(progress, title, total)


@contextmanager
def task(title: str) -> Iterator[Callable[[str], None]]:
    """Show a task whose number of steps is not known; call what it yields with a text as each begins."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            shown = progress.add_task(title, total=None)
            yield lambda text: progress.update(shown, description=f"{title}: {text}")
        return
    start = time.monotonic()

    def plain(text: str) -> None:
        print(f"{title}: {text} ({time.monotonic() - start:.1f} s)", file=sys.stderr, flush=True)  # noqa: T201

    yield plain
