"""`make tune` on a real server, from an interruption to what it writes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from pages import read
from support import Project

from tritonkit import queue_limits
from tritonkit import recipe as recipes
from tritonkit.errors import CheckFailed, OutputError, RecipeError
from tritonkit.recipe import Batching, Slo, writeback
from tritonkit.repository import config
from tritonkit_load import tune
from tritonkit_load.load.plan import Plan
from tritonkit_load.reporting import tunepage
from tritonkit_load.reporting.tuning_result import TuningResult
from tritonkit_load.tuning import space, tuner
from tritonkit_load.tuning.space import Settings
from tritonkit_load.tuning.tuner import Effort

# An interruption may come between the opening of a file and the line that would close it.
pytestmark = [
    pytest.mark.alone,
    pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning"),
]

# --- what is written into a recipe ---

TUNED = Batching(max_batch_size=8, max_queue_delay_us=0, instances=1)
UNBOUNDED = Batching(max_queue_delay_us=1000, instances=3, max_queue_size=0, queue_timeout_ms=0)
ON_A_GPU = Batching(target="cuda", max_queue_delay_us=0, instances=4, batch_sizes=(1, 8), cuda_graphs=False)
TAIL = "# about z\nz:    3     # odd   spacing\nlist:\n    - 1\n"


@pytest.mark.parametrize("batching", [TUNED, UNBOUNDED, ON_A_GPU])
@pytest.mark.parametrize(
    ("section", "kept"),
    [
        ("", ["# measured by `make tune`"]),
        ("batching: {instances: 2,   threads: 1}   # mine\n\n", ["# mine"]),
        ("batching: {}\n", ["# measured by `make tune`"]),
        ("batching:   # why\n    instances: 4   # four\n    # alone\n    threads: 1\n", ["# why", "# four", "# alone", "\n    instances:"]),
        ("batching:\n  queue_timeout_ms: 9\n  instances: 4\n\n\n", ["\n\n\n# about z"]),
    ],
)  # fmt: skip
def test_every_line_outside_the_section_stays_byte_for_byte(section: str, kept: list[str], batching: Batching) -> None:
    head = 'a:   1   # one\n"b": {c:    2}\n'
    new = writeback.replaced(head + section + TAIL, batching)
    assert new.startswith(head)
    assert TAIL in new
    assert all(text in new for text in kept)
    recipe = yaml.safe_load(new)
    assert Batching.model_validate(recipe["batching"]) == batching
    assert {"max_queue_delay_us", "instances", "threads"} <= recipe["batching"].keys()
    assert recipe.keys() == yaml.safe_load(head + section + TAIL).keys() | {"batching"}
    assert writeback.replaced(new, batching) == new


def test_a_recipe_that_cannot_be_changed_without_harm_says_what_to_write(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(json.dumps(yaml.safe_load(RECIPE)), encoding="utf-8")  # is YAML, too
    recipe, before = recipes.load(path), path.read_bytes()
    with pytest.raises(RecipeError, match="cannot be changed without harm") as caught:
        writeback.write(recipe, TUNED)
    assert caught.value.fix.startswith("write  batching: {max_batch_size: 8, ")
    assert path.read_bytes() == before


def test_what_a_person_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    recipe = recipes.load(path)
    path.write_text(RECIPE.replace("max_batch_size: ", "max_batch_size: 1"), encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(RecipeError, match="was changed while it was tuned"):
        writeback.write(recipe, TUNED)
    assert path.read_bytes() == before


def test_a_recipe_without_an_slo_gets_the_measured_one_and_keeps_its_own(tmp_path: Path) -> None:
    """One instance would have a queue without an end, as no bounds could follow: lint warns of it (TK052)."""
    path = tmp_path / "net.yaml"
    plain = "".join(line for line in RECIPE.splitlines(keepends=True) if not line.startswith("slo:"))
    path.write_text(plain, encoding="utf-8")
    new = writeback.write(recipes.load(path), TUNED, Slo(p99_ms=30))
    assert (new.slo, new.batching) == (Slo(p99_ms=30), TUNED)
    assert path.read_text(encoding="utf-8").startswith(plain[: plain.index("batching:")])
    times = queue_limits.ServiceTimes(2.0, 4.0, 8)
    limits = queue_limits.of_recipe(new, "cpu", times, cores=1)
    assert queue_limits.applied(new, "cpu", limits).serving("cpu").bounded
    assert not recipes.Recipe.model_validate({**new.model_dump(), "slo": None}).serving("cpu").bounded
    path.write_text(RECIPE, encoding="utf-8")
    assert writeback.write(recipes.load(path), TUNED, Slo(p99_ms=30)).slo == recipes.load(path).slo
    assert "what `make tune` measured by" not in path.read_text(encoding="utf-8")


def test_ends_of_lines_and_links_stay(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_bytes(RECIPE.replace("\n", "\r\n").encode())
    (tmp_path / "link.yaml").symlink_to("net.yaml")
    writeback.write(recipes.load(tmp_path / "link.yaml"), TUNED)
    assert (tmp_path / "link.yaml").is_symlink()
    new = (tmp_path / "net.yaml").read_bytes()
    assert new.count(b"\n") == new.count(b"\r\n")
    assert recipes.load(tmp_path / "net.yaml").batching == TUNED


# --- the whole road, on a real server ---

NAME = "heavy"
RECIPE = """\
# A graph that takes some milliseconds.
name: heavy
source: {onnx: heavy.onnx}
inputs:
  x: {dtype: fp32, dims: [2048]}    # a row
outputs:
  y: {dtype: fp32, dims: [2048]}
max_batch_size: 8
slo: {p50_ms: 60, error_rate: 0.05}   # a median, as others use the machine, too
batching:   # by hand
  instances: 2   # two
  max_queue_delay_us: 1000

# the end
"""
BRIEF = Effort(probe_s=0.3, final_s=0.3, warm_up_s=0.1, rounds=1, finalists=1)


def heavy(path: Path, size: int = 2048, count: int = 30) -> None:
    """Products with one large matrix, again and again."""
    weight = np.eye(size, dtype=np.float32)
    names = ["x", *(f"h{number}" for number in range(1, count)), "y"]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in itertools.pairwise(names)]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, NAME, tensors[:1], tensors[1:], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@dataclass
class Tuned:
    """The state after an interrupted call, and after the next one."""

    folder: Path
    interrupted: TuningResult
    recipe_then: str
    repository_then: bool
    result: TuningResult
    final: tuner.Final


@contextlib.contextmanager
def coarse() -> Iterator[None]:
    """A search that measures roughly, and soon: what becomes of its figures is tested here, not how good they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tritonkit_load.load.summary.LATEST_MS", 1000.0)  # others use the machine, too
        patch.setattr("tritonkit.precision.speed.ROUND_S", 0.05)
        patch.setattr("tritonkit_load.tuning.trial.FIRST_RESOLUTION", 1.5)
        patch.setattr("tritonkit_load.tuning.comparison.STRIDE", 1.5)
        patch.setattr("tritonkit_load.tuning.tuner.MOST_FIRST_RATE", 100.0)
        yield


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder = tmp_path_factory.mktemp("tuned")
    heavy(folder / "heavy.onnx")
    (folder / "heavy.yaml").write_text(RECIPE, encoding="utf-8")
    with coarse():
        recipe = recipes.load(folder / "heavy.yaml")
        options = tune.TuningJob(
            recipe, recipe.slo or Slo(), Plan(), 600.0, folder / "model_repository", folder / "reports", BRIEF
        )
        with interrupted_after(folder / "reports" / tune.JOURNAL, outcomes=2):
            interrupted, nothing = tune.run(options)
        assert nothing is None
        then = (folder / "heavy.yaml").read_text(encoding="utf-8"), (folder / "model_repository").exists()
        result, final = tune.run(replace(options, budget_s=10.0))
    assert final is not None
    return Tuned(folder, interrupted, *then, result, final)


class interrupted_after:  # noqa: N801
    """Ctrl-C, from a thread, when a journal has so many outcomes."""

    def __init__(self, journal: Path, outcomes: int) -> None:
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, args=(journal, outcomes))

    def _watch(self, journal: Path, outcomes: int) -> None:
        end = time.monotonic() + 100
        while not self.done.wait(0.05) and time.monotonic() < end:
            if journal.exists() and journal.read_bytes().count(b'"outcome"') >= outcomes:
                os.kill(os.getpid(), signal.SIGINT)
                return

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()


def test_an_interrupted_search_keeps_its_trials_and_the_recipe(tuned: Tuned) -> None:
    assert tuned.interrupted.partial
    assert len(tuned.interrupted.trials) >= 2
    assert tuned.interrupted.written == ()
    assert tuned.recipe_then == RECIPE
    assert not tuned.repository_then


def test_the_next_call_continues_and_ends_with_a_page(tuned: Tuned) -> None:
    before = [trial.settings for trial in tuned.interrupted.trials]
    assert [trial.settings for trial in tuned.result.trials][: len(before)] == before
    assert not tuned.result.partial
    assert tuned.result.ratio is None  # one round says nothing of how much rounds vary
    assert not any("times the capacity" in text for text in tunepage.gains(tuned.result))
    kept = json.loads((tuned.folder / "reports/result.json").read_text(encoding="utf-8"))
    assert TuningResult.from_json(kept) == tuned.result
    assert "<svg" in (tuned.folder / "reports/index.html").read_text(encoding="utf-8")


def test_both_references_are_among_the_trials_and_in_the_final(tuned: Tuned) -> None:
    current, default = tuned.final.current.settings, tuned.final.default.settings
    assert current == Settings("fp32", 8, 1000, 2, 1)
    assert (default.instances, default.queue_delay_us) == (1, 0)
    words = [trial.settings for trial in tuned.result.trials]
    assert current.words() in words
    assert tuned.result.default is not None
    assert words[tuned.result.default] == default.words()
    assert all(len(contender.limits) == BRIEF.rounds for contender in (tuned.final.current, tuned.final.default))


def test_the_winner_is_in_the_recipe_beside_its_comments_and_in_a_build(
    tuned: Tuned, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = (tuned.folder / "heavy.yaml").read_text(encoding="utf-8")
    assert text.startswith(RECIPE[: RECIPE.index("batching:")])
    for comment in ("# by hand", "# the end\n"):
        assert comment in text
    recipe, winner = recipes.load(tuned.folder / "heavy.yaml"), tuned.final.winner.settings
    assert space.of_recipe(recipe, "fp32") == winner
    written = tuned.folder / "model_repository/heavy"
    model_config = config.parse((written / "config.pbtxt").read_text(encoding="utf-8"))
    assert (model_config.max_batch_size, model_config.instance_group[0].count) == (
        winner.max_batch_size,
        winner.instances,
    )
    figures = json.loads((written / "passport.json").read_text(encoding="utf-8"))["tuning"]
    assert figures["settings"] == winner.as_json()
    assert figures["capacity"] == pytest.approx(tuned.final.winner.capacity, abs=0.1)

    project = Project(tmp_path, capsys, tmp_path)
    code, _, _ = project.run("build", tuned.folder / "heavy.yaml", "--repository", tmp_path / "again")
    assert code == 0
    for name in ("config.pbtxt", "passport.json"):
        assert (tmp_path / "again/heavy" / name).read_bytes() == (written / name).read_bytes()


def test_a_search_that_meets_no_slo_writes_its_page_and_warns_of_its_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heavy(tmp_path / "heavy.onnx", size=64, count=2)
    (tmp_path / "heavy.yaml").write_text(RECIPE.replace("2048", "64"), encoding="utf-8")
    recipe = recipes.load(tmp_path / "heavy.yaml")
    options = tune.TuningJob(
        recipe, Slo(p50_ms=0.01), Plan(), 10.0, tmp_path / "repository", tmp_path / "reports", BRIEF, write=False
    )
    with coarse(), pytest.raises(CheckFailed, match="configurations meets the SLO: misses") as caught:
        tune.run(options)
    assert caught.value.fix.endswith(f"every trial is in {tmp_path / 'reports/index.html'}")
    failed = TuningResult.from_json(json.loads((tmp_path / "reports/result.json").read_text(encoding="utf-8")))
    assert (failed.cause, failed.best, failed.partial) == ("slo", None, False)
    assert failed.failure == caught.value.message
    assert {trial.status for trial in failed.trials} == {"pruned"}
    page = read((tmp_path / "reports/index.html").read_text(encoding="utf-8")).visible_text()
    for text in ("No configuration meets the SLO", "What to do next", *(trial.why for trial in failed.trials)):
        assert text in page
    lines = capsys.readouterr().err.splitlines()
    (short,) = [place for place, line in enumerate(lines) if line.startswith("10 s are too short: what is served now")]
    assert short < next(place for place, line in enumerate(lines) if "trial 1" in line)


def test_a_recipe_that_cannot_be_written_is_refused_before_measuring(tmp_path: Path) -> None:
    heavy(tmp_path / "heavy.onnx")
    path = tmp_path / "heavy.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    recipe = recipes.load(path)
    options = tune.TuningJob(recipe, recipe.slo or Slo(), Plan(), 60.0, tmp_path / "repository", tmp_path / "reports")
    with pytest.MonkeyPatch.context() as patch:  # root may write everywhere
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(OutputError, match="read-only"):
            tune.run(options)
    assert not (tmp_path / "reports").exists()
