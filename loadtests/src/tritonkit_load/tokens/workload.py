"""What is sent: sessions of one request or several, from a stated distribution of lengths or from a recorded file.

Everything that does not fit into the model's context is refused here, before anything is started.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

from tritonkit.errors import InputError
from tritonkit_load.tokens.endpoints import Messages, Request
from tritonkit_load.tokens.streams import WORDS
from tritonkit_load.tokens.tokenizer import Tokenizer

Session = tuple[Request, ...]  # turns, each with what is new in it alone
LENGTHS = "64, 32-256, or lognormal:MEDIAN,SIGMA,MOST"
KEYS = "prompt or messages, max_tokens, session"
ANSWER = 256  # tokens of a recorded request that names no max_tokens: vLLM's own default would be 16


@dataclass(frozen=True)
class Lengths:
    """A distribution of numbers of tokens.

    Attributes:
        text: As it was written.
        low: The least.
        high: The most.
        median: Of a lognormal distribution, cut at both ends; None: every number is as likely.
        sigma: Standard deviation of its logarithm.
    """

    text: str
    low: int
    high: int
    median: float | None = None
    sigma: float = 0.0

    def draw(self, choice: random.Random) -> int:
        """A number of tokens."""
        if self.median is None:
            return choice.randint(self.low, self.high)
        drawn = choice.lognormvariate(math.log(self.median), self.sigma)
        return min(max(round(drawn), self.low), self.high)


def lengths(text: str, what: str) -> Lengths:
    """Read ``64``, ``32-256`` or ``lognormal:MEDIAN,SIGMA,MOST``.

    Raises:
        InputError: The text is none of these; the message begins with ``what``.
    """
    text = text.strip()
    if match := re.fullmatch(r"(\d+)(?:-(\d+))?", text):
        low, high = int(match[1]), int(match[2] or match[1])
        if 1 <= low <= high:
            return Lengths(text, low, high)
    elif match := re.fullmatch(r"lognormal:(\d+(?:\.\d+)?),(\d+(?:\.\d+)?),(\d+)", text):
        median, sigma, most = float(match[1]), float(match[2]), int(match[3])
        if 1 <= median <= most and 0 < sigma <= 10:
            return Lengths(text, 1, most, median, sigma)
    raise InputError(f"{what} {text!r} are no lengths", f"{LENGTHS} (tokens, from 1 on)")


class Workload(Protocol):
    """A supply of sessions; it goes to other processes as plain data."""

    @property
    def text(self) -> str:
        """In words."""

    def sessions(self, seed: str) -> Iterator[Session]:
        """Sessions without end, the same for the same seed."""


@dataclass(frozen=True)
class Drawn:
    """Sessions with lengths from distributions; prompts are words without a meaning, and answers are as long as drawn.

    Attributes:
        prompts: Tokens of each turn's prompt, within a token or two of it.
        answers: Tokens of each answer.
        turns: Of a session: each has those before it, and their answers, in front of it.
        prefix: A text that all sessions begin with.
        words: What prompts are made of, each with its number of tokens.
        added: Tokens that the tokenizer adds to any text.
        prefix_tokens: Of the prefix.
    """

    prompts: Lengths
    answers: Lengths
    turns: int
    prefix: str
    words: tuple[tuple[str, int], ...]
    added: int
    prefix_tokens: int

    @property
    def text(self) -> str:
        """See :attr:`Workload.text`."""
        shared = f" after {self.prefix_tokens} shared" if self.prefix_tokens else ""
        turns = f", {self.turns} turns a session" if self.turns > 1 else ""
        return f"prompts of {self.prompts.text} tokens{shared}, answers of {self.answers.text}{turns}"

    def sessions(self, seed: str) -> Iterator[Session]:
        """See :meth:`Workload.sessions`."""
        choice = random.Random(seed)
        while True:
            yield tuple(self._turn(choice, first=turn == 0) for turn in range(self.turns))

    def _turn(self, choice: random.Random, *, first: bool) -> Request:
        prompt, count = _fill(choice, self.words, self.prompts.draw(choice) - (self.added if first else 0))
        if first:
            return Request(
                self.prefix + prompt.lstrip(" " if not self.prefix else ""), self.answers.draw(choice),
                prompt_tokens=count + self.prefix_tokens + self.added,
            )  # fmt: skip
        return Request(prompt, self.answers.draw(choice), prompt_tokens=count)


@dataclass(frozen=True)
class Recorded:
    """Sessions of a recorded file, in its order, and from its beginning again when it ends.

    Attributes:
        name: Of the file.
        recorded: Its sessions.
    """

    name: str
    recorded: tuple[Session, ...]

    @property
    def text(self) -> str:
        """See :attr:`Workload.text`."""
        requests = sum(map(len, self.recorded))
        return f"{requests} recorded requests in {len(self.recorded)} sessions of {self.name}"

    def sessions(self, seed: str) -> Iterator[Session]:  # noqa: ARG002 -- what is recorded is not drawn
        """See :meth:`Workload.sessions`."""
        return cycle(self.recorded)


def drawn(
    prompts: str, answers: str, tokenizer: Tokenizer, context: int, *, turns: int = 1, prefix: int = 0, seed: int = 0
) -> Drawn:
    """Sessions with lengths from distributions.

    Args:
        prompts: Tokens of a prompt: :func:`lengths`.
        answers: Tokens of an answer.
        tokenizer: Of the model.
        context: Of the model, in tokens.
        turns: Of a session.
        prefix: Tokens that all prompts share, in front of their own.
        seed: Of the shared tokens.

    Raises:
        InputError: The lengths cannot be read, or a session may not fit into the context.
    """
    of_prompts, of_answers = lengths(prompts, "prompts"), lengths(answers, "answers")
    if turns < 1 or prefix < 0:
        raise InputError(
            f"{turns} turns after {prefix} shared tokens are no session", "at least one turn, and 0 tokens"
        )
    most = prefix + turns * (of_prompts.high + of_answers.high)
    if most > context:
        parts = f"{prefix} shared tokens and {turns} x ({of_prompts.high} + {of_answers.high})"
        raise InputError(
            f"a session may have {most} tokens ({parts}), and the model's context is {context}",
            "shorter --prompt-tokens, --answer-tokens or --shared-prefix, or fewer --turns",
        )
    words = tuple((f" {word}", tokenizer.added(f" {word}")) for word in (*WORDS.split(), "a", "of"))
    begins, count = _fill(random.Random(f"prefix {seed}"), words, prefix)
    return Drawn(of_prompts, of_answers, turns, begins.lstrip(), words, tokenizer.count("") or 0, count)


def recorded(path: Path, tokenizer: Tokenizer, context: int) -> Recorded:
    """Read a file of JSON lines: ``prompt`` or ``messages``, ``max_tokens``, ``session``.

    Requests with the same ``session`` are its turns, in the file's order; each has those before it, with the server's
    answers, in front of it.

    Raises:
        InputError: The file cannot be read, a line is no request, or a session does not fit into the context.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the recorded requests {path}: {error}", f"a file of JSON lines: {KEYS}"
        ) from error
    sessions: dict[object, list[Request]] = {}
    taken: dict[object, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        request, session = _request(line, where, tokenizer)
        key = (number,) if session is None else session
        taken[key] = taken.get(key, 0) + request.prompt_tokens + request.tokens
        if taken[key] > context:
            before = taken[key] - request.prompt_tokens - request.tokens
            turns = f" after {before} of the session's turns before" if before else ""
            raise InputError(
                f"{where}: a prompt of {request.prompt_tokens} tokens and an answer of {request.tokens}{turns} do not "
                f"fit into the model's context of {context}",
                "take the line out, lower its max_tokens, or raise max_model_len in the recipe",
            )
        sessions.setdefault(key, []).append(request)
    if not sessions:
        raise InputError(f"{path} has no requests", f"a JSON object a line: {KEYS}")
    return Recorded(path.name, tuple(tuple(session) for session in sessions.values()))


def _request(line: str, where: str, tokenizer: Tokenizer) -> tuple[Request, object]:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is no JSON: {error}", f"a JSON object: {KEYS}") from error
    if not isinstance(data, dict) or ("prompt" in data) == ("messages" in data):
        raise InputError(f"{where} is no request", f"a JSON object with {KEYS}")
    tokens = data.get("max_tokens", ANSWER)
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise InputError(f"{where}: max_tokens is {tokens!r}", "a whole number from 1 on")
    session = data.get("session")
    if session is not None and not isinstance(session, str | int):
        raise InputError(f"{where}: session is {session!r}", "a text or a number, the same for all turns")
    if "messages" in data:
        messages = _messages(data["messages"], where)
        count = sum(tokenizer.added(content) for _, content in messages)
        return Request("", tokens, messages, exact=False, prompt_tokens=count), session
    if not isinstance(data["prompt"], str) or not data["prompt"]:
        raise InputError(f"{where}: prompt is {data['prompt']!r:.80}", "a text")
    prompt = data["prompt"]
    return Request(prompt, tokens, exact=False, prompt_tokens=tokenizer.count(prompt)), session


def _messages(messages: Any, where: str) -> Messages:
    pairs: list[tuple[str, str]] = []
    for message in messages if isinstance(messages, list) else []:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            pairs = []
            break
        pairs.append((role, content))
    if not pairs:
        raise InputError(f"{where}: messages is {messages!r:.80}", 'a list of {"role": "user", "content": "..."}')
    return tuple(pairs)


def _fill(choice: random.Random, words: Sequence[tuple[str, int]], tokens: int) -> tuple[str, int]:
    """Random words of so many tokens, as near as words come to it, and how many tokens they are."""
    text, count = [], 0
    while count < tokens:
        fitting = [pair for pair in words if pair[1] <= tokens - count]
        word, size = choice.choice(fitting) if fitting else min(words, key=lambda pair: pair[1])
        text.append(word)
        count += max(size, 1)
    return "".join(text), count
