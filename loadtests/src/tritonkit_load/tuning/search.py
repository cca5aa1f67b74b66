"""Proposes which configuration to try next, and learns from what came of it: Optuna's TPE sampler, on a journal.

The journal outlives the process, so that a second search continues where the first one ended. What a trial is, and
what its capacity means, is for :mod:`.tuning.trial`.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from tritonkit import atomic, store
from tritonkit.errors import InputError
from tritonkit_load.tuning.space import NAMES, UNORDERED, Settings, Space

# Trials before the sampler trusts its model; some are drawn at random until then.
STARTUP = 4
# After those, one proposal in this many is a step in one setting away from the best: a model of few trials finds the
# right region, and not its top.
STEP_EVERY = 2
# After this many proposals in a row that were tried before, any untried one is taken.
STALE = 10


@dataclass(frozen=True)
class Outcome:
    """What came of one configuration.

    Attributes:
        status: ``measured``; ``pruned``: worse than the best, which a short probe showed; ``failed``: did not load;
            ``unsent``: the generator could not send its load. The next search tries it again.
        estimate: The limit, as far as it was looked for; where it was pruned, it is no higher. None where it failed
            or was not sent.
        capacity: The highest rate that met the SLO; None where it was pruned.
        p50_ms: At the highest rate that met the SLO.
        p99_ms: The same.
        probes: Runs that it took.
        seconds: Time that it took, loading included.
        why: It was pruned, failed, or was not sent.
    """

    status: Literal["measured", "pruned", "failed", "unsent"]
    estimate: float | None = None
    capacity: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    probes: int = 0
    seconds: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Trial:
    """One configuration and its outcome."""

    number: int
    settings: Settings
    outcome: Outcome


class Search:
    """A search in a space; :meth:`propose`, measure, :meth:`tell`, and again.

    Args:
        space: What may be tried.
        first: What is tried first, in order, unless the journal has it already.
        journal: Where trials are kept; nowhere if not given.
        identity: What trials depend on: where it differs from the journal's, the search begins anew.
        seed: The sampler's seed.
    """

    def __init__(
        self,
        space: Space,
        first: Sequence[Settings] = (),
        *,
        journal: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        # Through JSON, as the journal will have it.
        full_identity = json.loads(json.dumps(dict(identity or {}) | {"space": asdict(space)}))
        name = store.hash_of(full_identity)[:16]
        storage = _storage(journal)
        before = {study.study_name: study for study in optuna.get_all_study_summaries(storage)} if journal else {}
        self._study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True,
            sampler=TPESampler(n_startup_trials=STARTUP, multivariate=True, constant_liar=False, seed=seed),
        )  # fmt: skip
        if name in before:  # or it would draw again what it drew then
            self._study.sampler.reseed_rng()
        self.changed: list[str] = []
        if name not in before:
            self._study.set_user_attr("identity", full_identity)
            last = max(before.values(), key=lambda study: study._study_id, default=None)
            old = last.user_attrs.get("identity", {}) if last else {}
            self.changed = (
                sorted(key for key in {*full_identity, *old} if full_identity.get(key) != old.get(key)) if last else []
            )
        self._pending: optuna.Trial | None = None
        self._random = random.Random(seed)
        self.trials = self._kept()
        self.resumed = len(self.trials)
        queued = self._study.get_trials(states=[TrialState.WAITING])
        waiting = [trial.system_attrs.get("fixed_params") for trial in queued]
        for settings in first:  # Optuna's skip_if_exists would skip what was interrupted or could not be sent, too
            if settings.normal() not in self._known and self._encoded(settings) not in waiting:
                self._study.enqueue_trial(self._encoded(settings))

    @property
    def best(self) -> Trial | None:
        """The first of :meth:`ranked`."""
        return next(iter(self.ranked()), None)

    def ranked(self) -> list[Trial]:
        """Those that were measured, the best first."""
        measured = [trial for trial in self.trials if trial.outcome.status == "measured"]
        return sorted(measured, key=lambda trial: -(trial.outcome.estimate or 0.0))

    def propose(self) -> Settings | None:
        """What to try next; None when everything was tried."""
        if len(self.trials) >= STARTUP and len(self.trials) % STEP_EVERY == 0:
            self._enqueue_step()
        for turn in range(2 * STALE):
            if turn == STALE and not self._enqueue_untried():
                return None
            trial = self._study.ask(self._distributions())
            settings = self._decoded(trial.params)
            if settings not in self._known:
                self._pending = trial
                trial.set_user_attr("settings", settings.as_json())
                return settings
            self._study.tell(trial, state=TrialState.FAIL)  # what is known is not measured again
        return None

    def tell(self, settings: Settings, outcome: Outcome) -> Trial:
        """Record the outcome of the last proposal."""
        proposal, self._pending = self._pending, None
        assert proposal is not None
        trial = Trial(len(self.trials), settings, outcome)
        self.trials.append(trial)  # first, as an interruption may come at any line
        proposal.set_user_attr("outcome", asdict(outcome))
        if outcome.status == "pruned" and outcome.estimate is not None:
            proposal.report(outcome.estimate, step=1)
        self._conclude(proposal.number, outcome)
        return trial

    def _conclude(self, number: int, outcome: Outcome) -> None:
        """Tell the sampler what came of one of its trials."""
        if outcome.estimate is None:
            self._study.tell(number, state=TrialState.FAIL)
        elif outcome.status == "pruned":
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, outcome.estimate)

    @property
    def _known(self) -> set[Settings]:
        return {trial.settings for trial in self.trials}

    def _kept(self) -> list[Trial]:
        """The journal's trials, but for those that were unsent.

        One that was running when the process ended counts if its outcome was written.
        """
        trials: list[Trial] = []
        for kept in self._study.get_trials(deepcopy=False):
            if "outcome" in kept.user_attrs:
                outcome = Outcome(**kept.user_attrs["outcome"])
                if outcome.status != "unsent":
                    trials.append(Trial(len(trials), Settings(**kept.user_attrs["settings"]), outcome))
                if kept.state == TrialState.RUNNING:
                    self._conclude(kept.number, outcome)
            elif kept.state == TrialState.RUNNING:
                self._study.tell(kept.number, state=TrialState.FAIL)
        return trials

    def _enqueue_step(self) -> None:
        if self.best is None:
            return
        steps = [settings for settings in self.space.near(self.best.settings) if settings not in self._known]
        if steps:
            self._study.enqueue_trial(self._encoded(self._random.choice(steps)))

    def _enqueue_untried(self) -> bool:
        untried = [settings for settings in self.space.grid() if settings not in self._known]
        if untried:
            self._study.enqueue_trial(self._encoded(self._random.choice(untried)))
        return bool(untried)

    def _distributions(self) -> dict[str, BaseDistribution]:
        return {
            name: CategoricalDistribution(values) if name in UNORDERED else IntDistribution(0, len(values) - 1)
            for name, values in ((name, getattr(self.space, name)) for name in NAMES)
        }

    def _encoded(self, settings: Settings) -> dict[str, Any]:
        values = {name: getattr(settings, name) for name in NAMES}
        return {
            name: value if name in UNORDERED else getattr(self.space, name).index(value)
            for name, value in values.items()
        }

    def _decoded(self, params: Mapping[str, Any]) -> Settings:
        values = {
            name: value if name in UNORDERED else getattr(self.space, name)[value] for name, value in params.items()
        }
        return Settings(**values).normal()


def _storage(journal: Path | None) -> InMemoryStorage | JournalStorage:
    if journal is None:
        return InMemoryStorage()
    with atomic.explained(journal):
        journal.parent.mkdir(parents=True, exist_ok=True)
        _mend(journal)
        return JournalStorage(JournalFileBackend(str(journal)))


def _mend(journal: Path) -> None:
    """Cut off what a process that was killed left of its last line: Optuna would write the next one behind it.

    Raises:
        InputError: Another line is damaged.
    """
    if not journal.exists():
        return
    data = journal.read_bytes()
    whole = data.rfind(b"\n") + 1
    try:
        for line in data[:whole].splitlines():
            json.loads(line)
    except ValueError as error:
        raise InputError(f"the journal {journal} cannot be read: {error}", "remove it, to begin anew") from error
    if whole < len(data):
        os.truncate(journal, whole)
