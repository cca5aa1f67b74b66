"""What is sent: real samples only, in the sizes and shares that were asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritonkit import recipe, samples
from tritonkit.errors import InputError
from tritonkit_load.load import payloads
from tritonkit_load.load.plan import Plan

TOKENS = """
import numpy as np
def samples():
    for length in (3, 5, 8):
        yield {"ids": np.arange(1000, 1000 + length)}
"""


@pytest.fixture
def text(tmp_path: Path, write_recipe: Callable[..., Path]) -> Path:
    (tmp_path / "tokens.py").write_text(TOKENS, encoding="utf-8")
    fields: dict[str, Any] = {
        "inputs": {"ids": {"dtype": "int64", "dims": ["length"]}},
        "outputs": {"y": {"dtype": "fp32", "dims": [1]}},
        "shapes": {"length": {"min": 2, "opt": 8, "max": 16}},
        "max_batch_size": 4,
        "samples": "tokens.py:samples",
    }
    return write_recipe("text", **fields)


def test_every_row_that_is_sent_is_a_sample_of_the_recipe(write_recipe: Callable[..., Path]) -> None:
    path = write_recipe("arithmetic")
    requests = payloads.Library([path]).requests(Plan(batch_sizes="1-4"))
    allowed = {sample["left"].tobytes() for sample in samples.load(recipe.load(path), 64)}
    rows = [row for request in requests for row in request.inputs["left"]]
    assert {row.tobytes() for row in rows} == allowed
    assert all(np.array_equal(request.inputs["left"], -request.inputs["right"]) for request in requests)


def test_batch_sizes_and_models_come_in_the_shares_that_were_asked_for(write_recipe: Callable[..., Path]) -> None:
    library = payloads.Library([write_recipe("arithmetic"), write_recipe("arithmetic", name="other")])
    plan = Plan(models={"arithmetic": 3, "other": 1}, batch_sizes="1:0.7,4:0.3")
    requests = library.requests(plan)
    share = Counter((request.model, len(request.inputs["left"])) for request in requests)
    for model, weight in (("arithmetic", 0.75), ("other", 0.25)):
        for size, part in ((1, 0.7), (4, 0.3)):
            assert share[model, size] / len(requests) == pytest.approx(weight * part, abs=0.05)
    again = library.requests(plan)
    assert all(a.model == b.model and np.array_equal(a.inputs["left"], b.inputs["left"])
               for a, b in zip(requests, again, strict=True))  # fmt: skip
    other = library.requests(Plan(models=plan.models, batch_sizes=plan.batch_sizes, seed=1))
    assert [request.model for request in requests] != [request.model for request in other]


def test_lengths_are_sampled_or_drawn_and_values_come_from_samples(text: Path) -> None:
    library = payloads.Library([text])
    sampled = library.requests(Plan(batch_sizes="1,3"))
    assert {request.inputs["ids"].shape for request in sampled} == {(n, s) for n in (1, 3) for s in (3, 5, 8)}
    drawn = library.requests(Plan(lengths="2-16"))
    assert {request.inputs["ids"].shape[1] for request in drawn} == set(range(2, 17))
    values = np.concatenate([request.inputs["ids"].ravel() for request in (*sampled, *drawn)])
    assert values.min() >= 1000
    assert values.max() <= 1007


def test_a_number_by_itself_is_sent_with_the_dimension_that_triton_expects(write_recipe: Callable[..., Path]) -> None:
    inputs = {"x": {"dtype": "fp32", "dims": [4]}, "length": {"dtype": "int64", "dims": []}}
    for size, shape in ((4, (3, 1)), (0, (1,))):
        library = payloads.Library([write_recipe("numbers", inputs=inputs, max_batch_size=size, samples=None)])
        requests = library.requests(Plan(batch_sizes="3" if size else "1"))
        assert {request.inputs["length"].shape for request in requests} == {shape}


def test_a_model_that_does_not_batch_gets_samples_as_they_are(write_recipe: Callable[..., Path]) -> None:
    requests = payloads.Library([write_recipe("arithmetic", max_batch_size=0)]).requests(Plan())
    assert {request.inputs["left"].shape for request in requests} == {(3,)}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(batch_sizes="5"), "max_batch_size is 4"),
        (Plan(batch_sizes="0"), "no distribution"),
        (Plan(batch_sizes="many"), "no distribution"),
        (Plan(batch_sizes="1:0"), "no distribution"),
        (Plan(batch_sizes="4-2"), "no distribution"),
        (Plan(lengths="1-4"), "between 2 and 16"),
        (Plan(lengths="17"), "between 2 and 16"),
        (Plan(models={"nobody": 1}), "weights above 0 of text"),
        (Plan(models={"text": 0}), "weights above 0 of text"),
    ],
)
def test_what_a_model_cannot_take_is_refused_before_anything_is_sent(text: Path, plan: Plan, message: str) -> None:
    with pytest.raises(InputError) as caught:
        payloads.Library([text]).requests(plan)
    assert message in str(caught.value)


def test_lengths_of_a_model_without_a_dynamic_dimension_are_refused(write_recipe: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="0 dynamic dimensions"):
        payloads.Library([write_recipe("arithmetic")]).requests(Plan(lengths="4"))


def test_a_mix_is_read_with_and_without_weights() -> None:
    assert payloads.mix("a:3, b:0.5") == {"a": 3, "b": 0.5}
    assert payloads.mix("a") == {"a": 1}
    assert payloads.mix("") == {}
    with pytest.raises(InputError, match="model_a:3"):
        payloads.mix("a:many")


@pytest.mark.parametrize(
    ("users", "warm_up_s", "rate"),
    [(8, 2.0, 8), (150, 2.0, 150), (500, 20.0, 100), (1000, 2.0, 1000), (1000, 5.0, 400), (300, 0.0, 300)],
)
def test_all_callers_of_a_closed_loop_have_begun_before_it_is_measured(users: int, warm_up_s: float, rate: int) -> None:
    assert Plan(users=users, warm_up_s=warm_up_s).spawn_rate == rate
