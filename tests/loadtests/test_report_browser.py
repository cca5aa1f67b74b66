"""Every page in a real browser, from results of every shape: it fits a phone and a desktop, and can be read in the dark.

One start of the browser for all of them in light, one in dark.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import results
from pages import Layout, laid_out
from results import HEALTHY, HOSTILE, LONG, latencies, model

from tritonkit.recipe import Slo
from tritonkit_load.load.result import ModelResult, Result
from tritonkit_load.reporting import chart, comparepage, loadpage, tunepage

NAN = float("nan")
WIDTHS = (360, 1280)


@functools.cache
def pages() -> dict[str, str]:
    slo = Slo(p50_ms=20, p95_ms=30, p99_ms=50, goodput=0.99)
    usual = results.result(curve=results.steps())
    stalled = model(np.concatenate([latencies(900), np.linspace(1, 2000, 60)]), errors={"Overloaded": 40}, slo=slo)
    many = {f"{LONG}_{index}": model(latencies(300, 5.0 + index), slo=slo) for index in range(20)}
    wide = model(np.geomspace(0.05, 100_000, 3000), slo=Slo(p99_ms=0.07))
    dead = model(latencies(0), errors={HOSTILE + "unbroken" * 40: 1234567}, slo=slo)
    shapes = {
        "usual": usual,
        "stalled": results.result({"all_minilm_l6_v2": stalled}, series=results.series(60, 120, 30)),
        "nothing succeeded": results.result({HOSTILE + LONG: dead}, series=()),
        "one request": results.result({"m": model(latencies(1), slo=slo)}, series=results.series(1, 1, warm_up=0)),
        "no figure": not_a_number(),
        "latencies from 50 us to 100 s": results.result({"m": wide}, series=results.series(3600, 99_000)),
        "twenty models": results.result(many),
        "partial and invalid": replace(
            usual, partial=True, verdict=replace(usual.verdict, valid=False),
            generator=replace(HEALTHY, valid=False, capped=9, why=("99 % of the requests left up to 41 ms late",)),
        ),
        "streams on a GPU": results.result({"m": streamed(slo)}),
        "closed loop": replace(usual, load=replace(usual.load, loop="closed", arrivals=None, users=8)),
    }  # fmt: skip
    return (
        {name: loadpage.render(shape) for name, shape in shapes.items()}
        | {"tuning": tunepage.render(results.tuning()), "comparison": comparepage.render(results.comparison())}
        | {"nothing tuned": tunepage.render(replace(results.tuning(1), best=None, default=None, ratio=None, trials=()))}
        | {"nothing compared": comparepage.render(replace(results.comparison(), models={"m": ()}, partial=True))}
    )


def streamed(slo: Slo) -> ModelResult:
    figures = model(latencies(900, 1500.0), slo=slo)
    assert figures.server
    server = replace(
        figures.server, gpu_utilization=0.9999, gpu_memory_bytes=79_000_000_000, batch_sizes={1: 3, 64: 12_345}
    )
    return replace(figures, first_response=figures.latency, server=server)


def not_a_number() -> Result:
    """A result with a NaN wherever there can be one."""
    whole = results.result(curve=results.steps())
    (name, figures), *_ = whole.models.items()
    assert figures.latency
    assert figures.server
    missing = replace(figures.latency, mean=NAN, p50=NAN, p99=NAN, p999=math.inf, max=NAN)
    server = replace(figures.server, queue_ms=NAN, compute_ms=NAN, average_batch=NAN)
    return replace(
        whole, models={name: replace(figures, latency=missing, server=server, throughput=NAN, network_ms=NAN)},
        series=tuple(replace(second, p50_ms=NAN, p99_ms=NAN) for second in whole.series),
        curve=tuple(replace(point, throughput=NAN, p99_ms=None) for point in whole.curve),
        generator=replace(HEALTHY, cpu=NAN, lateness_p50_ms=None, lateness_p99_ms=None, lateness_max_ms=None),
    )  # fmt: skip


NAMES = tuple(pages())


@pytest.fixture(scope="module")
def light(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Layout]:
    return laid_out(chromium, tmp_path_factory.mktemp("light"), pages(), WIDTHS)


@pytest.fixture(scope="module")
def dark(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Layout]:
    return laid_out(chromium, tmp_path_factory.mktemp("dark"), pages(), WIDTHS[:1], dark=True)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_page_fits_its_window_and_no_label_covers_another(
    light: dict[tuple[str, int], Layout], name: str, width: int
) -> None:
    layout = light[name, width]
    assert layout.client == width
    assert layout.scroll <= width, "the page scrolls sideways"
    assert layout.overlaps == []
    assert layout.letters >= 11, "a chart's text is too small"
    assert layout.fetched == []


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"tuning", "comparison", "nothing compared"}])
def test_nothing_reaches_out_of_its_card(light: dict[tuple[str, int], Layout], name: str) -> None:
    """Long tables of many columns scroll in their card on a phone; nothing else may."""
    assert light[name, 1280].outside == []
    assert light[name, 360].outside == []


def test_on_a_desktop_three_charts_stand_side_by_side_and_on_a_phone_one(light: dict[tuple[str, int], Layout]) -> None:
    for name in ("usual", "tuning", "comparison"):
        assert light[name, 1280].columns == 3
        assert light[name, 360].columns == 1
        assert 0.9 * chart.WIDTH < light[name, 360].chart < 360
        assert light[name, 1280].outside == []


@pytest.mark.parametrize("name", NAMES)
def test_text_has_the_contrast_that_wcag_aa_asks_for_in_both_modes(
    light: dict[tuple[str, int], Layout], dark: dict[tuple[str, int], Layout], name: str
) -> None:
    assert light[name, 360].faint == []
    assert dark[name, 360].faint == []
