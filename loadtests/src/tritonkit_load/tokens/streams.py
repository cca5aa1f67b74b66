"""Keeps a number of streams busy for a time, and records when each of their tokens came.

A closed loop: a stream's next request is due at the moment at which its last one ended. Times are of one clock, in
seconds from the end of the warm-up.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tritonkit_load.tokens.endpoints import Endpoint, Request, StreamedNothing

WORDS = (
    "amber anchor autumn basket beacon bridge candle canyon copper cotton desert engine falcon forest garden glacier "
    "harbor hollow island jacket kettle ladder lantern marble meadow mirror needle orchard paper pebble pepper planet "
    "pocket quarry ribbon river saddle silver spruce summit temple thunder tunnel valley velvet violet walnut willow "
    "window winter"
)
OPENINGS = ("Write a short story about", "Explain to a child what connects", "List three facts about")


@dataclass(frozen=True)
class Answer:
    """One streamed answer.

    Attributes:
        due_s: When its stream was free for it.
        end_s: When its last part had come.
        arrivals: When each part with tokens came, and how many tokens it had.
        text: The answer.
        error: Why it failed, beginning with the type of error; empty if it did not.
        sent_s: When it was sent.
        pieces: Text of each arrival, where the server did not say how many tokens it had: these are 0 then, until
            :func:`.tokens.tokenizer.counted` fills them in. Empty where it did.
        prompt_tokens: Of its prompt; 0 where nobody counted them.
    """

    due_s: float
    end_s: float
    arrivals: tuple[tuple[float, int], ...]
    text: str
    error: str = ""
    sent_s: float = math.nan
    pieces: tuple[str, ...] = ()
    prompt_tokens: int = 0

    @property
    def tokens(self) -> int:
        """The number of tokens that came."""
        return sum(count for _, count in self.arrivals)


def requests(seed: int | str, words: int, tokens: int, mark: str = "") -> Iterator[Request]:
    """Requests without end, the same for the same seed.

    Each prompt begins with a number of its own, so that no two share a prefix that the engine could keep. Answers are
    between half as long as ``tokens`` and so long: streams of one length would all begin at once, again and again.

    Args:
        seed: Of the choices.
        words: Of a prompt, about a token each and a few for the opening.
        tokens: Of the longest answer.
        mark: What the prompts begin with: another mark makes other prompts of the same length and answers' length.
    """
    choice, known = random.Random(seed), WORDS.split()
    while True:
        named = " ".join(choice.choice(known) for _ in range(words))
        prompt = f"{mark}{choice.randrange(10**9)}: {choice.choice(OPENINGS)} {named}."
        yield Request(prompt, choice.randint(-(-tokens // 2), tokens))


def run(
    endpoint: Endpoint, numbers: Sequence[int], start: float, duration_s: float,
    work: Callable[[int], Iterator[Request]],
) -> list[Answer]:  # fmt: skip
    """Keep streams busy; every answer whose request was due before the end, those of the warm-up included.

    Requests in flight at the end are let finish. A stream stops at its first failure.

    Args:
        endpoint: Where they go.
        numbers: Of the streams, one each.
        start: When the warm-up, which begins now, ends, by ``time.monotonic()``.
        duration_s: Of the measurement, from then on.
        work: The requests of a stream, by its number.
    """
    answers: list[Answer] = []
    ending = threading.Event()

    def keep_busy(number: int) -> None:
        due = time.monotonic()
        for request in work(number):
            if ending.is_set() or due >= start + duration_s:
                return
            answer = ask(endpoint, request, due, start)
            answers.append(answer)
            if answer.error:
                return
            due = answer.end_s + start

    threads = [threading.Thread(target=keep_busy, args=(number,), daemon=True) for number in numbers]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # a Ctrl-C is noticed in between
    finally:
        ending.set()
    return sorted(answers, key=lambda answer: answer.due_s)


def ask(endpoint: Endpoint, request: Request, due: float, start: float) -> Answer:
    """One answer; a failure is in it and does not raise.

    Args:
        endpoint: Where the request goes.
        request: The request.
        due: When it was due, by ``time.monotonic()``.
        start: What the answer's times count from, by the same clock.
    """
    sent_s = time.monotonic() - start
    arrivals: list[tuple[float, int]] = []
    pieces: list[str] = []
    text, error, uncounted = [], "", False
    try:
        for part in endpoint.stream(request):
            if part.tokens or (part.tokens is None and part.text):
                arrivals.append((time.monotonic() - start, part.tokens or 0))
                pieces.append(part.text)
                uncounted = uncounted or part.tokens is None
            text.append(part.text)
        if not arrivals:
            raise StreamedNothing("the stream ended, and no token had come")
    except Exception as problem:  # whatever it is, the other streams go on and the figures say it
        error = f"{type(problem).__name__}: {problem}"
    came = sum(count for _, count in arrivals)
    if not error and not uncounted and request.exact and came != request.tokens:
        error = f"WrongLength: {came} tokens came, and {request.tokens} were asked for"
    return Answer(
        due - start, time.monotonic() - start, tuple(arrivals), "".join(text), error, sent_s,
        tuple(pieces) if uncounted else (), request.prompt_tokens,
    )  # fmt: skip


def failures(answers: Sequence[Answer]) -> list[str]:
    """What went wrong, each message once."""
    return list(dict.fromkeys(answer.error for answer in answers if answer.error))
