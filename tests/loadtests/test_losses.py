"""A tuning search whose server ends in the middle: started again, measured again, counted, and said."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from onnxmodels import write_linear, write_recipe

from tritonkit import recipe as recipes
from tritonkit.recipe import Slo
from tritonkit_load.load import summary
from tritonkit_load.load.plan import Plan
from tritonkit_load.tuning import losses, space
from tritonkit_load.tuning.comparison import rounds
from tritonkit_load.tuning.cores import divide
from tritonkit_load.tuning.limit import Ask, Probe
from tritonkit_load.tuning.space import Settings
from tritonkit_load.tuning.trial import timed
from tritonkit_load.tuning.trial_server import TrialServer, built

RATE = 20.0
RUN_S = 0.4
ONE_INSTANCE = "batching: {instances: 1}"  # each takes a second to load
pytestmark = pytest.mark.alone


class Deadly:
    """A trial_server whose server, or a process of its model, is killed in the middle of the next ``deaths`` runs."""

    def __init__(self, trial_server: TrialServer, deaths: int, victim: str = "server") -> None:
        self.trial_server, self.deaths, self.victim = trial_server, deaths, victim
        self.configured = 0

    def configure(self, settings: Settings) -> None:
        self.configured += 1
        self.trial_server.configure(settings)

    def ask(self, rate: float) -> Probe:
        if self.deaths:
            self.deaths -= 1
            server = psutil.Process(self.trial_server._server.pid)
            victim = server if self.victim == "server" else server.children()[0]
            threading.Timer(RUN_S / 2, os.kill, (victim.pid, signal.SIGKILL)).start()
        return self.trial_server.ask(rate)


@pytest.fixture(scope="module")
def trial_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialServer]:
    folder = tmp_path_factory.mktemp("lost")
    write_linear(folder / "classifier.onnx", 1.0)
    recipe = recipes.load(write_recipe(folder / "classifier.yaml", folder / "classifier.onnx", ONE_INSTANCE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "LATEST_MS", 1000.0)  # others use the machine, too
        with (
            built(recipe) as build,
            TrialServer(build, Slo(error_rate=0.2), Plan(duration_s=RUN_S, warm_up_s=0.1), divide()) as trial_server,
        ):
            yield trial_server


@contextmanager
def expect_losses(trial_server: TrialServer, losses: int) -> Iterator[None]:
    """So many servers are lost within."""
    before = len(trial_server.lost)
    yield
    assert len(trial_server.lost) == before + losses


def settings(trial_server: TrialServer) -> Settings:
    return space.of_recipe(trial_server.build.recipe, trial_server.build.chosen)


def processes_of_generator(trial_server: TrialServer) -> tuple[int, ...]:
    assert trial_server._generator is not None
    return trial_server._generator.pids


@pytest.mark.parametrize("victim", ["server", "stub"])
def test_a_trial_is_measured_again_from_its_beginning(trial_server: TrialServer, victim: str) -> None:
    deadly, generators = Deadly(trial_server, 1, victim), processes_of_generator(trial_server)
    with expect_losses(trial_server, 1):
        outcome = timed(deadly.configure, capped(deadly), settings(trial_server), RATE, RATE)
    assert (outcome.status, outcome.why, deadly.configured) == ("measured", "", 2)
    cause = "tritonserver was ended by SIGKILL" if victim == "server" else "a process of its model ended"
    assert trial_server.lost[-1] == f"{cause} with {settings(trial_server)}"
    assert trial_server.ask(RATE).met  # on the server that runs now
    assert processes_of_generator(trial_server) == generators


def test_a_configuration_fails_where_the_server_is_lost_with_it_twice(trial_server: TrialServer) -> None:
    deadly = Deadly(trial_server, 2)
    with expect_losses(trial_server, 2):
        outcome = timed(deadly.configure, deadly.ask, settings(trial_server), None, RATE)
    assert outcome.status == "failed"
    assert "the server was lost: tritonserver was ended by SIGKILL" in outcome.why


def test_a_final_round_is_measured_again_and_counts_as_missed_the_second_time(trial_server: TrialServer) -> None:
    once, twice = Deadly(trial_server, 1), Deadly(trial_server, 2)
    with expect_losses(trial_server, 1):
        measured = rounds(once.configure, capped(once), {settings(trial_server): RATE}, 1)
    assert measured[settings(trial_server)].capacity
    with expect_losses(trial_server, 2):
        measured = rounds(twice.configure, twice.ask, {settings(trial_server): RATE}, 1)
    assert measured[settings(trial_server)].capacity == 0


def test_the_servers_that_were_lost_are_counted_in_one_sentence() -> None:
    assert losses.note([]) == ()
    (sentence,) = losses.note(["tritonserver was ended by SIGSEGV with fp32, batch 8"] * 2)
    assert sentence.startswith("The server was lost 2 times and started again (tritonserver was ended by SIGSEGV with")
    assert "measured again" in sentence


def capped(deadly: Deadly) -> Ask:
    """Asks of the first rate, and takes every rate above it for missed, so that a search is short."""

    def ask(rate: float) -> Probe:
        return deadly.ask(rate) if rate <= RATE else Probe(rate, met=False, served=rate, p50_ms=1, p99_ms=1)

    return ask
