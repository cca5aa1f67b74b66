"""What `make bench-tuning` keeps of a measurement, so that an interrupted one continues; no server is needed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tritonkit_load.benchmarks import bench_tuning
from tritonkit_load.tuning import comparison, tuner
from tritonkit_load.tuning.comparison import Measured
from tritonkit_load.tuning.limit import Probe
from tritonkit_load.tuning.space import Settings


def test_a_choice_that_is_read_again_has_the_runs_that_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that was assumed would make the search look cheaper, or dearer, than it was."""
    monkeypatch.setattr(tuner, "identity", lambda *_: {"graph": "one"})
    bench: Any = object.__new__(bench_tuning.Bench)
    bench.folder, bench.size, bench.built, bench.slo, bench.cores = tmp_path, bench_tuning.QUICK, None, None, None
    limits = {Settings("fp32", 1, 0, 1, 1): 90.0, Settings("int8", 4, 0, 2, 1): 640.0}
    served: list[Settings] = []
    rates: list[float] = []

    def ask(rate: float) -> Probe:
        rates.append(rate)
        return Probe(rate, rate <= limits[served[-1]], rate, 5.0, 10.0)

    def measure() -> list[Measured]:
        return list(comparison.rounds(served.append, ask, dict.fromkeys(limits, 100.0), 1).values())

    first = bench._kept("chosen", "these", measure)
    taken = len(rates)
    again = bench._kept("chosen", "these", measure)
    assert len(rates) == taken, "nothing was measured again"
    assert [measured.runs for measured in again] == [measured.runs for measured in first]
    assert sum(measured.runs for measured in again) == taken
    assert again[0].runs != again[1].runs, "no one number fits both"
    bench._kept("chosen", "others", measure)
    assert len(rates) == 2 * taken, "what was kept of another choice does not count"
