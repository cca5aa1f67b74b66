"""The horizontal pod autoscaler's arithmetic, as Kubernetes documents and does it, and KEDA's step from and to zero.

Numbers in, numbers out: it knows no metric's name, no simulation and no cluster. Sources: kubernetes.io, "Horizontal
Pod Autoscaling" (algorithm details, configurable scaling behaviour) and the controller of Kubernetes 1.30 to 1.37;
keda.sh, "Scaling Deployments" (polling interval, cooldown period, activation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

TOLERANCE = 0.1  # --horizontal-pod-autoscaler-tolerance's default
SYNC_S = 15  # --horizontal-pod-autoscaler-sync-period's default


@dataclass(frozen=True)
class Policy:
    """At most so much change in ``period_s`` seconds: ``value`` pods, or percent of those at its beginning."""

    kind: Literal["Pods", "Percent"]
    value: int
    period_s: int = 15


@dataclass(frozen=True)
class Rules:
    """``behavior.scaleUp`` or ``scaleDown``.

    Attributes:
        window_s: Stabilization: the most cautious wish of that time counts.
        policies: Limits of the change.
        select: Which of several policies counts: the one that allows most, least, or no change at all.
    """

    window_s: int
    policies: tuple[Policy, ...]
    select: Literal["Max", "Min", "Disabled"] = "Max"


# What Kubernetes does where `behavior` says nothing.
DEFAULT_UP = Rules(0, (Policy("Percent", 100), Policy("Pods", 4)))
DEFAULT_DOWN = Rules(300, (Policy("Percent", 100),))


def within(ratio: float, tolerance: float = TOLERANCE) -> bool:
    """Whether a ratio of value to target is too near to 1 to change anything."""
    return abs(ratio - 1) <= tolerance + 1e-12  # 1.1 is within 0.1, whatever floating point makes of it


def ceiling(value: float) -> int:
    """The next whole number above; rounding errors do not make one more of it."""
    return math.ceil(value - 1e-9)


def for_pods(
    values: Sequence[float], target: float, current: int, missing: int = 0, pending: int = 0,
    tolerance: float = TOLERANCE,
) -> int:  # fmt: skip
    """Replicas wanted by a ``Pods`` metric, or a resource's utilization: the mean of the pods against the target.

    Args:
        values: Of each pod that has one and is not pending.
        target: ``averageValue``.
        current: Replicas now.
        missing: Pods that run and have no value, such as those that load models.
        pending: Pods that do not run yet.
        tolerance: See ``TOLERANCE``.
    """
    if not values:
        return current  # no metric, no decision
    ratio = sum(values) / len(values) / target
    up_with_pending = pending > 0 and ratio > 1
    if not missing and not up_with_pending:
        return current if within(ratio, tolerance) else ceiling(ratio * len(values))
    count, total = len(values), sum(values)
    if missing:  # as if at the target when shrinking, idle when growing: both dampen
        count += missing
        total += missing * target if ratio < 1 else 0.0
    if up_with_pending:
        count += pending
    again = total / count / target
    if within(again, tolerance) or (ratio < 1) != (again < 1):
        return current
    replicas = ceiling(again * count)
    return current if (again < 1) == (replicas > current) else replicas


def for_total(total: float, target: float, current: int, tolerance: float = TOLERANCE) -> int:
    """Replicas wanted by an ``External`` or ``Object`` metric with ``averageValue``: the total shared by all."""
    if current and within(total / (target * current), tolerance):
        return current
    return ceiling(total / target)


def for_value(value: float, target: float, current: int, ready: int, tolerance: float = TOLERANCE) -> int:
    """Replicas wanted by an ``External`` or ``Object`` metric with ``value``, such as seconds in the queue."""
    ratio = value / target
    if current and within(ratio, tolerance):
        return current
    return ceiling(ratio * ready) if current else ceiling(ratio)


@dataclass
class Autoscaler:
    """One HorizontalPodAutoscaler: remembers wishes and changes, and limits what is wished.

    Attributes:
        least: ``minReplicas``.
        most: ``maxReplicas``.
        up: ``behavior.scaleUp``.
        down: ``behavior.scaleDown``.
    """

    least: int
    most: int
    up: Rules = DEFAULT_UP
    down: Rules = DEFAULT_DOWN
    _wishes: list[tuple[float, int]] = field(default_factory=list)
    _ups: list[tuple[float, int]] = field(default_factory=list)
    _downs: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now: float, current: int, wished: int) -> int:
        """Replicas from now on, of the wish that the metric made at second ``now``."""
        if current == 0:
            return 0  # switched off; only KEDA begins again
        stable = self._stabilized(now, current, wished)
        if stable > current:
            limit = max(self._limit(now, current, self.up, +1), current)
            decided = min(stable, limit, self.most)
        else:
            limit = min(self._limit(now, current, self.down, -1), current)
            decided = max(stable, limit, self.least)
        decided = min(max(decided, self.least), self.most)
        if decided > current:
            self._ups.append((now, decided - current))
        elif decided < current:
            self._downs.append((now, current - decided))
        return decided

    def _stabilized(self, now: float, current: int, wished: int) -> int:
        up = min([wished, *(wish for at, wish in self._wishes if at > now - self.up.window_s)])
        down = max([wished, *(wish for at, wish in self._wishes if at > now - self.down.window_s)])
        longest = max(self.up.window_s, self.down.window_s)
        self._wishes = [(at, wish) for at, wish in self._wishes if at > now - longest] + [(now, wished)]
        return min(max(current, up), down)

    def _limit(self, now: float, current: int, rules: Rules, sign: int) -> int:
        """The furthest that the policies allow in this direction."""
        if rules.select == "Disabled":
            return current
        longest = max((policy.period_s for policy in (*self.up.policies, *self.down.policies)), default=0)
        self._ups = [event for event in self._ups if event[0] > now - longest]
        self._downs = [event for event in self._downs if event[0] > now - longest]
        limits = []
        for policy in rules.policies:
            since = now - policy.period_s
            added = sum(count for at, count in self._ups if at > since)
            removed = sum(count for at, count in self._downs if at > since)
            begin = current - added + removed
            if policy.kind == "Pods":
                limits.append(begin + sign * policy.value)
            elif sign > 0:
                limits.append(ceiling(begin * (1 + policy.value / 100)))
            else:
                limits.append(int(begin * (1 - policy.value / 100) + 1e-9))
        furthest = (rules.select == "Max") == (sign > 0)
        return (max if furthest else min)(limits, default=current)


@dataclass
class Zero:
    """KEDA's part: no replica after a quiet time, and the first one again.

    Attributes:
        polling_s: How often it asks while there is none.
        cooldown_s: How long nothing may have been asked for before the last one goes.
        activation: A value above this one counts as something.
    """

    polling_s: int = 30
    cooldown_s: int = 300
    activation: float = 0.0
    _active_at: float = 0.0

    def decide(self, now: float, current: int, value: float, least: int = 1) -> int | None:
        """Replicas from now on if it is KEDA that decides; None where the autoscaler does."""
        if value > self.activation:
            self._active_at = now
            return max(least, 1) if current == 0 else None
        if current > 0 and now - self._active_at > self.cooldown_s:
            return 0
        return 0 if current == 0 else None
