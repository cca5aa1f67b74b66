"""vLLM's own metrics, read from its server and turned into what changed since the last look.

Triton's Python API observes a histogram value by value, at a call between processes each, which an engine that makes
thousands of tokens a second outruns. So a histogram is kept as what Prometheus makes of one, counters by bucket, with
their sum and count: queries of quantiles and rates read these alike.
"""

from __future__ import annotations

import re

PREFIX = "vllm:"
GAUGES = {
    "num_requests_running": "Number of requests in model execution batches.",
    "num_requests_waiting": "Number of requests waiting to be processed.",
    "kv_cache_usage_perc": "KV-cache usage. 1 means 100 percent usage.",
}
COUNTERS = {
    "prompt_tokens_total": "Number of prefill tokens processed.",
    "generation_tokens_total": "Number of generation tokens processed.",
    "num_preemptions_total": "Cumulative number of preemption from the engine.",
    "prefix_cache_queries_total": "Prefix cache queries, in terms of number of queried tokens.",
    "prefix_cache_hits_total": "Prefix cache hits, in terms of number of cached tokens.",
}
# vLLM's histogram, and the names that it is exported under: NVIDIA's backend keeps an older one.
HISTOGRAMS = {
    "time_to_first_token_seconds": ("time_to_first_token_seconds",),
    "inter_token_latency_seconds": ("inter_token_latency_seconds", "time_per_output_token_seconds"),
    "e2e_request_latency_seconds": ("e2e_request_latency_seconds",),
    "request_prompt_tokens": ("request_prompt_tokens",),
    "request_generation_tokens": ("request_generation_tokens",),
    "request_params_n": ("request_params_n",),
}
_SAMPLE = re.compile(r"^vllm:(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_BUCKET = re.compile(r'(?:^|,)le="([^"]*)"')
_PARTS = tuple(f"{name}{part}" for name in HISTOGRAMS for part in ("_bucket", "_sum", "_count"))


class Exposition:
    """What a server's ``/metrics`` says, look after look.

    A server that was started again counts from zero, and what it counted before stays counted.
    """

    def __init__(self) -> None:
        self._counted: dict[tuple[str, str], float] = {}

    def read(self, text: str) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
        """Take up an exposition.

        Returns:
            Gauge to value, and (counter, bucket or "") to what was added since the last call; nothing where it is
            met for the first time, as a quantile needs the empty buckets, too.
        """
        gauges: dict[str, float] = {}
        totals: dict[tuple[str, str], float] = {}
        for name, labels, number in _SAMPLE.findall(text):
            value = float(number)
            if name == "kv_cache_usage_perc":
                gauges[name] = max(value, gauges.get(name, 0.0))
            elif name in GAUGES:
                gauges[name] = value + gauges.get(name, 0.0)
            elif name in COUNTERS or name in _PARTS:
                bucket = _BUCKET.search(labels)
                key = (name, bucket[1] if bucket else "")
                totals[key] = value + totals.get(key, 0.0)
        added = {}
        for key, value in totals.items():
            before = self._counted.get(key, 0.0)
            if key not in self._counted or value != before:
                added[key] = value - before if value >= before else value
        self._counted.update(totals)
        return gauges, added


def exported(counter: str) -> tuple[str, ...]:
    """The names under which a counter of vLLM's is exported."""
    for histogram, names in HISTOGRAMS.items():
        if counter.startswith(f"{histogram}_"):
            return tuple(name + counter[len(histogram) :] for name in names)
    return (counter,)
