"""``tritonkit-client generate``: lets a language model answer, at once or as it comes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .._client import Client
from .._language.chat import Message
from .._language.generation import Delta, Generation, Usage
from .._language.text_streams import TextStream
from .._protocol.errors import InvalidInput
from .outputs import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("model")
    parser.add_argument("prompt", help="the text to go on with; - reads it from stdin")
    parser.add_argument("--stream", action="store_true", help="print the answer as it comes")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="of the answer (default: the engine's)")
    parser.add_argument("--temperature", type=float, metavar="T", help="0: the most probable token each time")
    parser.add_argument("--stop", action="append", metavar="TEXT", help="ends the answer; may be given several times")
    parser.add_argument("--seed", type=int, metavar="N", help="of the random choices")
    parser.add_argument("--lora", metavar="NAME", help="an adapter")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another parameter of the engine: top_p=0.9"
    )
    parser.add_argument("--chat", action="store_true", help="the prompt is a user's message, for the chat template")
    parser.add_argument("--system", metavar="TEXT", help="a system message in front of it; means --chat")
    parser.add_argument(
        "--chat-template", metavar="PATH",
        help="a Hugging Face directory or a .jinja file, where the model publishes no template; means --chat",
    )  # fmt: skip
    parser.add_argument("--idle-timeout", type=float, metavar="SECONDS", help="from one part of a stream to the next")


def generate(client: Client, options: argparse.Namespace) -> int:
    """Ask, and print the answer."""
    text = sys.stdin.read() if options.prompt == "-" else options.prompt
    chat = options.chat or options.system is not None or options.chat_template is not None
    arguments: dict[str, Any] = {
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "stop": options.stop,
        "seed": options.seed,
        "lora": options.lora,
        **dict(_parameter(pair) for pair in options.set),
    }
    if options.idle_timeout is not None and not options.stream:
        raise InvalidInput("--idle-timeout is for streams", "give --stream too, or --timeout for the whole answer")
    messages = _messages(options.system, text) if chat else None
    if chat:
        arguments["chat_template"] = options.chat_template
    if not options.stream:
        answer = client.generate(options.model, None if chat else text, messages=messages, **arguments)
        say(json.dumps(_json(answer)) if options.json else answer.text)
        if not options.json:
            say(_summary(answer.finish_reason, answer.usage), sys.stderr)
        return 0
    arguments["idle_timeout"] = options.idle_timeout
    parts: TextStream = (
        client.stream(options.model, text, **arguments)
        if messages is None
        else client.stream(options.model, messages=messages, **arguments)
    )
    with parts:
        _print_parts(parts, as_json=options.json)
    return 0


def _print_parts(parts: TextStream, *, as_json: bool) -> None:
    if as_json:
        for delta in parts:
            say(json.dumps(_json(delta)))
        return
    open_line = False
    try:
        for delta in parts:
            say(delta.text, end="")
            open_line = open_line or bool(delta.text)
    finally:
        if open_line:
            say("")  # an error, too, begins on a line of its own
    say(_summary(delta.finish_reason, delta.usage), sys.stderr)


def _messages(system: str | None, text: str) -> Sequence[Message]:
    user = {"role": "user", "content": text}
    return [user] if system is None else [{"role": "system", "content": system}, user]


def _parameter(pair: str) -> tuple[str, Any]:
    """A name, and a value that is JSON where it can be, else text."""
    name, sign, value = pair.partition("=")
    if not sign or not name:
        raise InvalidInput(f"--set {pair} has no '='", "write --set NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _json(part: Generation | Delta) -> dict[str, Any]:
    """What is known, and of the usage also what is not."""
    return {name: value for name, value in asdict(part).items() if value is not None}


def _summary(finish_reason: str | None, usage: Usage | None) -> str:
    counts = {} if usage is None else {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens}
    words = [f"finish reason {finish_reason}"] if finish_reason else []
    words += [f"{count} {name} tokens" for name, count in counts.items() if count is not None]
    return ", ".join(words) or "the engine does not tell tokens, nor why the answer ends"
