"""The engine's side over time: vLLM's own metrics, from Triton's page of metrics or from vLLM's.

Running and waiting requests, use of the KV cache and preemptions, under the names that vLLM gives them.
"""

from __future__ import annotations

import math
import re
import threading
import time
import urllib.request
from collections.abc import Sequence

from tritonkit_load.tokens.result import EngineSample

EVERY_S = 0.5  # the embedded server's own metrics change as often
TIMEOUT_S = 2.0
NAMES = {
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
    "kv_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),  # the second until vLLM 0.10
    "preemptions": ("vllm:num_preemptions_total", "vllm:num_preemptions"),
}
_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(\{[^}]*\})? (\S+)", re.MULTILINE)


class Watch:
    """Reads the metrics while a load runs; a context manager.

    Args:
        url: Of the page of metrics; empty: there is nothing to read.
        model: Whose lines count, where they name models.
    """

    def __init__(self, url: str, model: str) -> None:
        self._url, self._model = url, model
        self._samples: list[tuple[float, dict[str, float]]] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Watch:
        if self._url:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        if self._url:
            self._thread.join(TIMEOUT_S + 1)

    def samples(self, start: float) -> tuple[EngineSample, ...]:
        """What was read, with times from ``start`` (``time.monotonic()``); empty where the server exports none."""
        readings = [(at, values) for at, values in self._samples if values]
        first = next((values["preemptions"] for _, values in readings if "preemptions" in values), 0.0)
        return tuple(
            EngineSample(
                round(at - start, 3), values.get("running"), values.get("waiting"), values.get("kv_usage"),
                values["preemptions"] - first if "preemptions" in values else None,
            )
            for at, values in readings
        )  # fmt: skip

    def _read(self) -> None:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self._ending.is_set():
            at = time.monotonic()
            try:
                with direct.open(self._url, timeout=TIMEOUT_S) as page:
                    self._samples.append((at, readings(page.read().decode(errors="replace"), self._model)))
            except OSError:  # it has died, or is stopped: the next one may succeed
                pass
            self._ending.wait(max(at + EVERY_S - time.monotonic(), 0.01))


def readings(metrics: str, model: str) -> dict[str, float]:
    """The values that a page of metrics has, by our name; what is exported for other models does not count."""
    totals: dict[str, float] = {}
    for name, labels, text in _LINE.findall(metrics):
        key = next((key for key, names in NAMES.items() if name in names), None)
        if key is None or _foreign(labels, model):
            continue
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isfinite(value):
            totals[key] = max(totals.get(key, 0.0), value) if key == "kv_usage" else totals.get(key, 0.0) + value
    return totals


def _foreign(labels: str, model: str) -> bool:
    """Whether a line names another model; vLLM alone names it by its path."""
    named = re.search(r'\bmodel="([^"]*)"', labels)
    return named is not None and named[1] != model


def notes(samples: Sequence[EngineSample]) -> tuple[str, ...]:
    """What the reader of a result has to know of them."""
    if not samples:
        return ("The server exports no metrics of its engine, so its side is not shown.",)
    return ()
