"""Shows a run of engine builds: a bar on a terminal, lines elsewhere; TensorRT's own progress monitor feeds it.

Everything goes to standard error. A build elsewhere than on a terminal says more than its first line only when it
takes long: one line every ten seconds at most.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_EVERY_S = 10.0


class Watch:
    """Shows what is being built and how far it is; this base class shows nothing."""

    def next(self, text: str) -> None:
        """Begin the next build."""

    def phase(self, text: str, share: float) -> None:
        """The build at hand has done ``share`` (0 to 1) of its work and is now at ``text``."""


class _Lines(Watch):
    def __init__(self, stream: TextIO, title: str, total: int) -> None:
        self._stream, self._title, self._total, self._done = stream, title, total, 0
        self._start = self._last_line = time.monotonic()

    def next(self, text: str) -> None:
        self._done += 1
        self._say(text)

    def phase(self, text: str, share: float) -> None:
        if time.monotonic() - self._last_line >= _EVERY_S:
            self._say(f"{share:.0%}, {text}")

    def _say(self, text: str) -> None:
        self._last_line = time.monotonic()
        seconds = self._last_line - self._start
        line = f"[{self._done}/{self._total}] {self._title}: {text} ({seconds:.1f} s)"
        print(line, file=self._stream, flush=True)


class _Bar(Watch):
    def __init__(self, progress: Progress, title: str, total: int) -> None:
        self._progress, self._title, self._done, self._text = progress, title, -1, ""
        self._task = progress.add_task(title, total=total)

    def next(self, text: str) -> None:
        self._done, self._text = self._done + 1, text
        self._progress.update(self._task, completed=self._done, description=f"{self._title}: {text}")

    def phase(self, text: str, share: float) -> None:
        description = f"{self._title}: {self._text}, {text.lower()}"
        self._progress.update(self._task, completed=self._done + share, description=description)


@contextmanager
def watch(title: str, total: int) -> Iterator[Watch]:
    """Show ``total`` builds while the block runs."""
    with _own_stderr() as stream:
        console = Console(file=stream)
        if not console.is_terminal:
            yield _Lines(stream, title, total)
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            yield _Bar(progress, title, total)


@contextmanager
def _own_stderr() -> Iterator[TextIO]:
    """Standard error under a file number of its own: the usual one is silent while TensorRT works."""
    try:
        number = sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        yield sys.stderr  # a test or a notebook has put something else there
        return
    with open(os.dup(number), "w", encoding="utf-8") as stream:  # noqa: PTH123
        yield stream


def monitor(module: Any, shown: Watch, cancelled: threading.Event) -> Any:
    """A TensorRT progress monitor that reports to ``shown``, and ends the build once ``cancelled`` is set.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        shown: Shows the outermost phase's share and the innermost phase's name.
        cancelled: Checked after every step, of which a build has hundreds.
    """

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._phases: dict[str, int] = {}  # name to number of steps, outermost first
            self._share = 0.0
            self._lock = threading.Lock()  # TensorRT calls from several threads

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            with self._lock:
                self._phases[phase_name] = num_steps
                self._tell(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                outermost = next(iter(self._phases), None)
                if phase_name == outermost:
                    self._share = (step + 1) / max(self._phases[phase_name], 1)
                self._tell(next(reversed(self._phases), phase_name))
            return not cancelled.is_set()

        def _tell(self, text: str) -> None:
            try:
                shown.phase(text, min(self._share, 1.0))
            except OSError:  # nobody reads standard error any more; an exception may not pass through C++
                cancelled.set()

    return Monitor()
