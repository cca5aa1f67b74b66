"""A tuning search whose server ends in the middle: started again, measured again, counted, and said."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from load import summary
from load.plan import Plan
from onnxmodels import write_linear, write_recipe
from tuning import losses, space
from tuning.comparison import rounds
from tuning.cores import divide
from tuning.limit import Probe
from tuning.rig import Rig, built
from tuning.space import Settings
from tuning.trial import timed

from tritonkit import recipe as recipes
from tritonkit.recipe import Slo

RATE = 20.0
RUN_S = 0.4
pytestmark = pytest.mark.alone


class Deadly:
    """A rig whose server, or a process of its model, is killed in the middle of the next ``deaths`` runs."""

    def __init__(self, rig: Rig, deaths: int, victim: str = "server") -> None:
        self.rig, self.deaths, self.victim = rig, deaths, victim
        self.configured = 0

    def configure(self, settings: Settings) -> None:
        self.configured += 1
        self.rig.configure(settings)

    def ask(self, rate: float) -> Probe:
        if self.deaths:
            self.deaths -= 1
            server = psutil.Process(self.rig._server.pid)
            victim = server if self.victim == "server" else server.children()[0]
            threading.Timer(RUN_S / 2, os.kill, (victim.pid, signal.SIGKILL)).start()
        return self.rig.ask(rate)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("lost")
    write_linear(folder / "classifier.onnx", 1.0)
    recipe = recipes.load(write_recipe(folder / "classifier.yaml", folder / "classifier.onnx"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "LATEST_MS", 1000.0)  # others use the machine, too
        with (
            built(recipe) as build,
            Rig(build, Slo(error_rate=0.2), Plan(duration_s=RUN_S, warm_up_s=0.1), divide()) as rig,
        ):
            yield rig


@contextmanager
def expect_losses(rig: Rig, losses: int) -> Iterator[None]:
    """So many servers are lost within."""
    before = len(rig.lost)
    yield
    assert len(rig.lost) == before + losses


def settings(rig: Rig) -> Settings:
    return space.of_recipe(rig.build.recipe, rig.build.chosen)


@pytest.mark.parametrize("victim", ["server", "stub"])
def test_a_trial_is_measured_again_from_its_beginning(rig: Rig, victim: str) -> None:
    deadly = Deadly(rig, 1, victim)
    with expect_losses(rig, 1):
        outcome = timed(deadly.configure, lambda rate: capped(deadly.ask(rate)), settings(rig), None, RATE)
    assert (outcome.status, outcome.why, deadly.configured) == ("measured", "", 2)
    cause = "tritonserver was ended by SIGKILL" if victim == "server" else "a process of its model ended"
    assert rig.lost[-1] == f"{cause} with {settings(rig)}"
    assert rig.ask(RATE).met  # on the server that runs now


def test_a_configuration_fails_where_the_server_is_lost_with_it_twice(rig: Rig) -> None:
    deadly = Deadly(rig, 2)
    with expect_losses(rig, 2):
        outcome = timed(deadly.configure, deadly.ask, settings(rig), None, RATE)
    assert outcome.status == "failed"
    assert "the server was lost: tritonserver was ended by SIGKILL" in outcome.why


def test_a_final_round_is_measured_again_and_counts_as_missed_the_second_time(rig: Rig) -> None:
    once, twice = Deadly(rig, 1), Deadly(rig, 2)
    with expect_losses(rig, 1):
        measured = rounds(once.configure, lambda rate: capped(once.ask(rate)), {settings(rig): RATE}, 1)
    assert measured[settings(rig)].capacity
    with expect_losses(rig, 2):
        measured = rounds(twice.configure, twice.ask, {settings(rig): RATE}, 1)
    assert measured[settings(rig)].capacity == 0


def test_the_servers_that_were_lost_are_counted_in_one_sentence() -> None:
    assert losses.note([]) == ()
    (sentence,) = losses.note(["tritonserver was ended by SIGSEGV with fp32, batch 8"] * 2)
    assert sentence.startswith("The server was lost 2 times and started again (tritonserver was ended by SIGSEGV with")
    assert "measured again" in sentence


def capped(probe: Probe) -> Probe:
    """The same where it is missed; nothing above twice the first rate is met, so that a search is short."""
    return probe if probe.rate < 2 * RATE else Probe(probe.rate, met=False, served=probe.served, p50_ms=1, p99_ms=1)
