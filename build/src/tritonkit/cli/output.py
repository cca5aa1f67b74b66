"""What every command prints with: one console, JSON on request, and the folder that holds a project's recipes."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tritonkit.errors import OutputError, TritonkitError

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
out = Console(highlight=False)
RECIPES = Path("build/recipes")
DEBUG = "TRITONKIT_DEBUG"  # set: scripts without --debug show tracebacks
UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h


def run_command(command: Callable[[], int], *, debug: bool | None = None) -> int:
    """Run a command line's work; its exit code, with an error said on standard error and not as a traceback.

    SIGTERM, which CI and `timeout` send, is a Ctrl-C here: what was measured is kept, and servers
    that were started end.

    Args:
        command: The work.
        debug: Whether errors leave this function, as tracebacks; None for a script without ``--debug``, where
            ``TRITONKIT_DEBUG`` decides.

    Raises:
        Exception: With ``debug``, whatever went wrong.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names that are no text, and terminals of few letters
    hint = f"{DEBUG}=1 before the command" if debug is None else "--debug"
    raised = bool(os.environ.get(DEBUG)) if debug is None else debug
    try:
        with _sigterm_interrupts():
            code = command()
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written shows here, and not after the exit code
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has seen enough; what is left of the buffer would be written, and fail, at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if raised:
            raise
        if isinstance(error, TritonkitError):
            text, code = str(error), error.exit_code
        elif isinstance(error, OSError):  # a full disk under the output, say
            text, code = str(error), 2
        else:
            text, code = _unexpected(error, hint), UNEXPECTED
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {escape(text)}")
        return code


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt as long as the block: also in the first process of a container, which has no
    default handler for it and would be waited for until it is killed.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _unexpected(error: Exception, hint: str) -> str:
    """What to say of an error that nobody foresaw: its first line, and the place of ours that it left."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    place = f" (in {Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = f": {lines[0].strip()}" if lines else ""
    fix = f"this is a mistake of tritonkit's; {hint} shows the traceback, for a report"
    return f"{type(error).__name__}{reason}{place}\n  fix: {fix}"


def make_table(*headers: str, **options: Any) -> Table:
    """A table without lines; what is wider than its column goes on below, where rich would cut it off.

    Args:
        headers: One a column.
        options: rich's own of a table.
    """
    table = Table(*headers, box=None, pad_edge=False, **options)
    for column in table.columns:
        column.overflow = "fold"
    return table


def print_json(data: object) -> None:
    """JSON on standard output, for programs, and nothing that RFC 8259 does not know.

    Numbers that JSON does not have are ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, as in protobuf's JSON mapping;
    bytes of a file name that are no text are ``\\udcff`` and the like.

    Raises:
        OSError: There is no standard output.
    """
    if sys.stdout is None:  # closed by whoever started this; print() would say nothing, and nothing of that
        raise OSError("the standard output is closed")
    print(json.dumps(_strict(data), indent=2, allow_nan=False))  # noqa: T201


def counted(count: int, singular: str, plural: str = "") -> str:
    """ "1 request", "2,000 requests"."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def _strict(data: object) -> object:
    if isinstance(data, dict):
        return {_strict(key): _strict(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_strict(item) for item in data]
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    return data.encode(errors="backslashreplace").decode() if isinstance(data, str) else data


def write_recipe(path: Path, text: str) -> None:
    """Write a first recipe, and print how it is built.

    Raises:
        OutputError: There is a file of that name.
    """
    from tritonkit import atomic

    if path.exists():
        raise OutputError(f"{path} exists", "name another file with --output")
    atomic.write(path, text.encode())
    out.print(f"wrote {path}; next: tritonkit build {shlex.quote(str(path))}", soft_wrap=True, markup=False)
