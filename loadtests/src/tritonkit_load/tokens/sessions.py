"""Sends sessions in an open loop, when a schedule says, or in a closed one, by users who wait for each answer.

The first turn of a session is due when the schedule says, or when its user's last session has ended; each further turn
when the answer before it is there. Every time counts from when a request was due, however late it left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from tritonkit_load.tokens.endpoints import Endpoint, Request
from tritonkit_load.tokens.streams import Answer, ask
from tritonkit_load.tokens.workload import Session, Workload

MOST = 1000  # sessions of one process in flight: each is a thread
PATIENCE_S = 120.0  # after the last request was due, until those without an answer are given up
AFTER_FAILURE_S = 0.5  # until a user of a closed loop tries again: a dead server would be asked without a pause


@dataclass(frozen=True)
class Sessions:
    """A load for :class:`.tokens.generator.Generator`.

    Attributes:
        endpoint: Where to.
        workload: What is sent.
        duration_s: Measured seconds.
        warm_up_s: Seconds before them.
        seed: Of the workload.
        due_s: An open loop: when each session is due, in seconds from the end of the warm-up, ascending.
        users: A closed loop: how many.
        patience_s: See :data:`PATIENCE_S`.
    """

    endpoint: Endpoint
    workload: Workload
    duration_s: float
    warm_up_s: float
    seed: str
    due_s: tuple[float, ...] = ()
    users: int = 0
    patience_s: float = PATIENCE_S

    def send(self, number: int, processes: int, begun: float) -> list[Answer]:
        """See :meth:`tokens.generator.Sendable.send`."""
        start = begun + self.warm_up_s
        run = _Run(self.endpoint, start, start + self.duration_s)
        threads: list[threading.Thread] = []
        if self.users:
            for user in range(number, self.users, processes):
                sessions = self.workload.sessions(f"{self.seed} {user}")
                threads.append(threading.Thread(target=run.keep_asking, args=(sessions, begun), daemon=True))
                threads[-1].start()
        else:
            sessions = islice(self.workload.sessions(self.seed), number, None, processes)
            for due_s, session in zip(self.due_s[number::processes], sessions, strict=False):
                time.sleep(max(start + due_s - time.monotonic(), 0))
                if sum(thread.is_alive() for thread in threads) >= MOST:
                    threads = [thread for thread in threads if thread.is_alive()]
                    if len(threads) >= MOST:
                        run.note(Answer(due_s, due_s, (), "", f"NotSent: {MOST} sessions were without an answer"))
                        continue
                threads.append(threading.Thread(target=run.converse, args=(session, start + due_s), daemon=True))
                threads[-1].start()
        end = start + self.duration_s + self.patience_s
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0))
        return run.close(self.patience_s)


class _Run:
    """What all threads of one process share."""

    def __init__(self, endpoint: Endpoint, start: float, end: float) -> None:
        self._endpoint, self._start, self._end = endpoint, start, end
        self._lock = threading.Lock()
        self._answers: list[Answer] = []
        self._open: dict[int, float] = {}
        self._closed = False

    def note(self, answer: Answer) -> None:
        """Keep an answer, unless nobody waits for it any more."""
        with self._lock:
            self._open.pop(threading.get_ident(), None)
            if not self._closed:
                self._answers.append(answer)

    def converse(self, session: Session, due: float) -> Answer | None:
        """All turns of a session, each due when the one before has ended; the last answer."""
        history: Request | None = None
        answer: Answer | None = None
        for turn in session:
            if due >= self._end or self._closed:
                break
            request = continued(history, answer, turn) if history and answer else turn
            with self._lock:
                self._open[threading.get_ident()] = due - self._start
            answer = ask(self._endpoint, request, due, self._start)
            self.note(answer)
            if answer.error:
                break
            history, due = request, answer.end_s + self._start
        return answer

    def keep_asking(self, sessions: Iterator[Session], due: float) -> None:
        """A user: one session after the other until the end."""
        for session in sessions:
            answer = self.converse(session, due)
            if answer is None:
                return
            due = answer.end_s + self._start
            if answer.error:
                time.sleep(AFTER_FAILURE_S)
                due = time.monotonic()

    def close(self, patience_s: float) -> list[Answer]:
        """All answers; what is still open has failed."""
        with self._lock:
            self._closed = True
            now = time.monotonic() - self._start
            why = f"Unanswered: no end within {patience_s:g} s after the load"
            self._answers += [Answer(due_s, now, (), "", why) for due_s in self._open.values()]
            return sorted(self._answers, key=lambda answer: answer.due_s)


def continued(before: Request, answer: Answer, turn: Request) -> Request:
    """The next turn, with what came before it in front."""
    tokens = before.prompt_tokens + answer.tokens + turn.prompt_tokens
    if turn.messages:
        earlier = (*before.messages, ("assistant", answer.text)) if before.messages else ()
        return replace(turn, messages=(*earlier, *turn.messages), prompt_tokens=tokens)
    return replace(turn, prompt=before.prompt + answer.text + turn.prompt, prompt_tokens=tokens)


def schedule(times: Iterable[float], duration_s: float) -> tuple[float, ...]:
    """A schedule's times as plain numbers, those before the end."""
    return tuple(float(time_s) for time_s in times if time_s < duration_s)
