"""vLLM's metrics beside Triton's own, and the state of its process."""

import asyncio

import triton_python_backend_utils as pb_utils

from . import http_client, metrics

LOOK_EVERY_S = 0.5
RESTARTS, READY = "tritonkit_vllm_restarts_total", "tritonkit_vllm_ready"


class Reporter:
    """The metrics of one model and version.

    Args:
        engine: The server's process.
        labels: Of every metric: ``model`` and ``version``.
        of_engine: Whether vLLM's own are exported, too.
    """

    def __init__(self, engine, labels, *, of_engine):
        self._engine = engine
        self._labels = labels
        self._of_engine = of_engine
        self._families = {}
        self._metrics = {}
        self._restarts = 0
        self._exposition = metrics.Exposition()
        try:
            self._metric(RESTARTS, pb_utils.MetricFamily.COUNTER, "Times that vLLM's process ended and was replaced.")
            self._enabled = True
        except pb_utils.TritonModelException as error:
            self._enabled = False  # tritonserver was started with --allow-metrics=false
            pb_utils.Logger.log_info(f"{labels['model']}: without metrics: {error}")

    async def report(self):
        """Keep the metrics up to date, until cancelled."""
        loop = asyncio.get_running_loop()
        while self._enabled:
            text = ""
            if self._of_engine and self._engine.ready:
                try:
                    text = (await http_client.call(self._engine.port, "GET", "/metrics"))[1].decode("utf-8")
                except (http_client.ConnectionLost, UnicodeDecodeError):
                    text = ""
            await loop.run_in_executor(None, self._publish, text)
            await asyncio.sleep(LOOK_EVERY_S)

    def _publish(self, text):
        kinds = pb_utils.MetricFamily
        ended, self._restarts = self._engine.restarts - self._restarts, self._engine.restarts
        if ended:
            self._metric(RESTARTS, kinds.COUNTER, "").increment(ended)
        self._metric(READY, kinds.GAUGE, "1 while vLLM's process answers, 0 while it starts again.").set(
            float(self._engine.ready)
        )
        if not self._of_engine:
            return
        gauges, added = self._exposition.read(text)
        for name, description in metrics.GAUGES.items():
            self._metric(metrics.PREFIX + name, kinds.GAUGE, description).set(gauges.get(name, 0.0))
        for (counter, bucket), value in added.items():
            for name in metrics.exported(counter):
                labels = {"le": bucket} if bucket else {}
                description = metrics.COUNTERS.get(counter, f"Of vLLM's histogram {counter.rpartition('_')[0]}.")
                self._metric(metrics.PREFIX + name, kinds.COUNTER, description, **labels).increment(value)

    def _metric(self, name, kind, description, **labels):
        key = (name, *labels.values())
        if key not in self._metrics:
            if name not in self._families:
                self._families[name] = pb_utils.MetricFamily(name=name, description=description, kind=kind)
            self._metrics[key] = self._families[name].Metric(labels=self._labels | labels)
        return self._metrics[key]
