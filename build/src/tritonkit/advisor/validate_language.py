"""Prints how well predictions for language models hold on rows that their coefficients were not fitted to.

``python -m tritonkit.advisor.validate_language``; with ``--write`` the coefficients are fitted anew and stored.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonkit.advisor import language_fit
from tritonkit.advisor.language_fit import Row
from tritonkit.advisor.language_latency import Coefficients

_SIZES = ("llama-3.1-8b", "llama-3.3-70b", "llama-3.1-405b")


@dataclass(frozen=True)
class Check:
    """A group of rows, and how far off the predictions are that were made without them.

    Attributes:
        name: What was held out.
        errors: Prediction over figure, less 1, of each row.
        median_bar: What the median of their sizes may be; None where nothing is promised.
        worst_bar: What the largest may be; None where nothing is promised.
    """

    name: str
    errors: tuple[float, ...]
    median_bar: float | None = None
    worst_bar: float | None = None

    @property
    def median(self) -> float:
        """The median size of the errors."""
        return statistics.median(abs(error) for error in self.errors)

    @property
    def worst(self) -> float:
        """The largest size of the errors."""
        return max(abs(error) for error in self.errors)

    @property
    def kept(self) -> bool:
        """Whether both bars are kept."""
        return self.median <= (self.median_bar or 1e9) and self.worst <= (self.worst_bar or 1e9)

    def to_json(self) -> dict[str, Any]:
        """As plain data; errors are shares."""
        return {
            "held_out": self.name, "rows": len(self.errors), "kept": self.kept,
            "median": round(self.median, 4), "median_bar": self.median_bar,
            "worst": round(self.worst, 4), "worst_bar": self.worst_bar,
        }  # fmt: skip


def checks() -> list[Check]:
    """Every check: first those with a bar, then what was never fitted."""
    return [*_held_out(), *_measured(), *_never_fitted()]


def text(done: Sequence[Check]) -> str:
    """The checks as a table."""
    lines = [f"{'held out':74} {'rows':>4} {'median':>7} {'bar':>5} {'worst':>6} {'bar':>5}"]
    for check in done:
        bars = [f"{bar:.0%}" if bar is not None else "-" for bar in (check.median_bar, check.worst_bar)]
        mark = "" if check.kept else "  MISSED"
        lines.append(
            f"{check.name:74} {len(check.errors):4} {check.median:7.1%} {bars[0]:>5} "
            f"{check.worst:6.1%} {bars[1]:>5}{mark}"
        )
    return "\n".join(lines) + "\n"


def _held_out() -> Iterator[Check]:
    for gpu in ("h200", "h100-sxm"):
        name = f"GPU {gpu}: 8B, 70B, 405B of TensorRT-LLM 1.0, fp8"
        yield _without("dense", name, lambda row, gpu=gpu: row.gpu == gpu, 0.10, 0.25)  # type: ignore[misc]
    for size in _SIZES:
        name = f"size {size}, on H200 and H100, TP 1 to 8"
        yield _without("dense", name, lambda row, size=size: row.model == size, 0.20)  # type: ignore[misc]
    unseen = [row for row in language_fit.rows() if _is_workstation(row)]
    fitted = language_fit.stage("dense")
    yield _check("GPU rtx-pro-6000: 70B fp4, coefficients of Hopper in fp8", unseen, fitted, 0.10, 0.25)


def _without(
    stage: str, name: str, out: Callable[[Row], bool], median: float | None = None, worst: float | None = None
) -> Check:
    """Fit a stage without the rows that are out, and hold the result against them."""
    fit = language_fit.stage(stage, keep=lambda row: not out(row))
    return _check(name, [row for row in language_fit.rows() if row.stage == stage and out(row)], fit, median, worst)


def _is_workstation(row: Row) -> bool:
    return row.gpu == "rtx-pro-6000" and row.model == "llama-3.3-70b"


def _measured() -> Iterator[Check]:
    """The H200's own rows: each batch foretold from the others."""
    start = language_fit.hardware(language_fit.coefficients("tensorrt_llm"))
    rows = [row for row in language_fit.rows() if row.stage == "vllm"]
    errors: list[float] = []
    for batch in sorted({row.batch or 0 for row in rows}):
        others = [row for row in rows if row.batch != batch]
        fit = language_fit.fit(language_fit.STAGES["vllm"][1], others, start)
        errors += _errors([row for row in rows if row.batch == batch], fit)
    yield Check("batch by batch: vLLM 0.26 measured on H200, bf16 and fp8, prefill and TPOT", tuple(errors), None, 0.20)


def _never_fitted() -> Iterator[Check]:
    groups: dict[str, list[Row]] = {}
    for row in language_fit.rows():
        if not row.stage and not _is_workstation(row):
            name = f"never fitted: {row.model} {row.weights} on {row.gpu_count} x {row.gpu}, {row.source.split(' ')[0]}"
            groups.setdefault(name, []).append(row)
    for name, rows in groups.items():
        yield _check(name, rows, language_fit.coefficients("tensorrt_llm"))


def _check(
    name: str, rows: Sequence[Row], fit: Coefficients, median: float | None = None, worst: float | None = None
) -> Check:
    return Check(name, tuple(_errors(rows, fit)), median, worst)


def _errors(rows: Sequence[Row], fit: Coefficients) -> list[float]:
    return [language_fit.predict(row, fit) / row.value - 1 for row in rows]


def stored() -> str:
    """The coefficients, fitted anew, as ``language_coefficients.json`` has them: four digits each."""
    data: dict[str, Any] = {"source": "python -m tritonkit.advisor.validate_language --write; rows: language_rows.csv"}
    for engine, fit in language_fit.fit_all().items():
        data[engine] = {name: float(f"{value:.4g}") for name, value in dataclasses.asdict(fit).items()}
    return json.dumps(data, indent=2) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Print the checks; 1 where a bar is missed."""
    if "--write" in arguments:
        Path(__file__).with_name("language_coefficients.json").write_text(stored(), encoding="utf-8")
    done = checks()
    if "--json" in arguments:
        sys.stdout.write(json.dumps([check.to_json() for check in done], indent=2) + "\n")
    else:
        sys.stdout.write(text(done))
    return 0 if all(check.kept for check in done) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
