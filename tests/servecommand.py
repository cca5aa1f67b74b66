"""Runs ``tritonkit serve`` as a person does, and reads what it prints."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(repository: Path, *arguments: str) -> Iterator[tuple[int, Callable[[str], str]]]:
    """The process id, and a function that waits for a line that matches a pattern; SIGTERM must end it well."""
    command = [str(Path(sys.executable).with_name("tritonkit")), "serve", str(repository), *arguments]
    command += [word for name in ("http", "grpc", "metrics") for word in (f"--{name}-port", "0")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "300"})
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    stdout = process.stdout

    def read() -> None:
        for line in stdout:
            lines.put(line.rstrip())

    reader = threading.Thread(target=read)
    reader.start()

    def line(pattern: str) -> str:
        while not re.search(pattern, text := lines.get(timeout=60)):
            pass
        return text

    try:
        yield process.pid, line
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        reader.join()
        stdout.close()
