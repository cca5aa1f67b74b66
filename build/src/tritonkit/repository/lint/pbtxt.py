"""Reads ``config.pbtxt``: Triton's own protobuf says what it means, a small tokenizer says on which line.

It also finds the comments that switch rules off. It knows nothing of models.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

_TOKEN = re.compile(
    r"""(?P<comment>\#[^\n]*) | (?P<string>"(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*')
      | (?P<mark>[{}<>\[\]:,;]) | (?P<word>[^\s{}<>\[\]:,;"'\#]+) | (?P<other>["'])""",
    re.VERBOSE,
)
_IGNORE = re.compile(r"#\s*tritonkit:\s*ignore\b(?P<ids>.*)")
_OPENS = {"{": "}", "<": ">"}
_POOL = pb.DESCRIPTOR.pool
# A step to a field: its name, or its name with its index or, in a map, its key.
Step: TypeAlias = "str | tuple[str, int | str]"


@dataclass(frozen=True)
class Mistake:
    """Why a text is no configuration; ``near`` is the field or value that was probably meant."""

    line: int
    message: str
    near: str = ""
    two_schedulers: bool = False


@dataclass(frozen=True)
class Ignore:
    """A comment that switches rules off; no ids means all of them."""

    line: int
    ids: tuple[str, ...]


@dataclass
class Node:
    """One field in the text: where it stands, what is in it."""

    line: int
    value: str = ""
    fields: dict[str, list[Node]] = field(default_factory=dict)

    def find(self, *steps: Step) -> Node | None:
        """The field that ``steps`` lead to; None where the text does not have it."""
        node: Node = self
        for step in steps:
            name, index = step if isinstance(step, tuple) else (step, 0)
            nodes = node.fields.get(name, [])
            if isinstance(index, str):
                nodes = [entry for entry in nodes if (key := entry.find("key")) and key.value == index]
                index = 0
            if index >= len(nodes):
                return None
            node = nodes[index]
        return node

    def line_of(self, *steps: Step) -> int | None:
        """The line of a field, or of the nearest one around it that the text has."""
        for end in range(len(steps), 0, -1):
            node = self.find(*steps[:end])
            if node is not None:
                return node.line
        return None


def parse(text: str) -> pb.ModelConfig | Mistake:
    """The configuration that a text describes, or why it describes none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of an escape that protobuf takes as it is
            return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        return _mistake(text, error)
    except (RecursionError, ValueError, OverflowError) as error:
        return Mistake(1, f"it cannot be parsed: {error}")


def outline(text: str) -> Node:
    """Where each field stands; for any text, sensible for one that :func:`parse` accepts."""
    root = Node(1)
    _read_fields(_Tokens(text), root, "")
    return root


def ignores(text: str) -> list[Ignore]:
    """The comments ``# tritonkit: ignore TK012, TK013``."""
    comments = []
    for kind, word, line in _all_tokens(text):
        match = _IGNORE.match(word) if kind == "comment" else None
        if match:
            comments.append(Ignore(line, tuple(re.findall(r"[\w-]+", match["ids"].split("#")[0]))))
    return comments


def _all_tokens(text: str) -> Iterator[tuple[str, str, int]]:
    line, position = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        yield str(match.lastgroup), match[0], line


class _Tokens:
    """Tokens without comments, one ahead; past the end there are empty ones."""

    def __init__(self, text: str) -> None:
        self._left = iter([token for token in _all_tokens(text) if token[0] != "comment"])
        self.kind = self.word = ""
        self.line = 1
        self.next()

    def next(self) -> None:
        self.kind, self.word, self.line = next(self._left, ("", "", self.line))

    def take(self, *words: str) -> bool:
        """Step over the current token if it is one of ``words``."""
        if self.kind == "mark" and self.word in words:
            self.next()
            return True
        return False


def _read_fields(tokens: _Tokens, node: Node, end: str) -> None:
    while tokens.kind:
        if tokens.take(",", ";"):
            continue
        if tokens.kind == "mark":
            if tokens.word == end:
                tokens.next()
                return
            tokens.next()  # not in a text that parses
            continue
        name, line = tokens.word, tokens.line
        tokens.next()
        tokens.take(":")
        if tokens.take("["):
            node.fields.setdefault(name, [])
            while tokens.kind and not tokens.take("]"):
                if not tokens.take(","):
                    node.fields.setdefault(name, []).append(_read_value(tokens))
        else:
            value = _read_value(tokens)
            value.line = line
            node.fields.setdefault(name, []).append(value)


def _read_value(tokens: _Tokens) -> Node:
    node = Node(tokens.line)
    if tokens.kind == "mark" and tokens.word in _OPENS:
        end = _OPENS[tokens.word]
        tokens.next()
        _read_fields(tokens, node, end)
        return node
    if tokens.kind == "string":
        while tokens.kind == "string":  # adjacent strings are one
            node.value += tokens.word[1:-1]
            tokens.next()
        return node
    node.value = tokens.word
    tokens.next()
    return node


def _mistake(text: str, error: text_format.ParseError) -> Mistake:
    line = int(error.GetLine() or 1)
    message = str(error)
    if match := re.search(r'Message type "(inference\.([\w.]+))" has no field named "([^"]+)"', message):
        known = [entry.name for entry in _POOL.FindMessageTypeByName(match[1]).fields]
        return Mistake(line, f"{_describe(match[2])} has no field {match[3]!r}", _near(match[3], known))
    if match := re.search(r'Enum type "(inference\.([\w.]+))" has no value named (\w+)', message):
        known = [value.name for value in _POOL.FindEnumTypeByName(match[1]).values]
        return Mistake(line, f"{match[3]!r} is no {match[2]}", _near(match[3], known))
    if match := re.search(
        r'Field "(\w+)" is specified along with field "(\w+)", another member of oneof "(\w+)"', message
    ):
        return Mistake(line, f"{match[2]} and {match[1]} exclude each other", two_schedulers="scheduling" in match[3])
    if match := re.search(r'should not have multiple "(\w+)" fields', message):
        return Mistake(line, f"{match[1]} is given twice")
    if "\ufeff" in text[:1]:
        return Mistake(line, "it begins with a byte order mark")
    return Mistake(line, f"it is not in protobuf's text format: {_short(message)}")


def _short(message: str) -> str:
    """The last part of protobuf's sentence; the parts before quote the whole line."""
    last = re.sub(r"^\d+:\d+ : ", "", message.rsplit("': ", 1)[-1])
    return last.rstrip(".")[:120].encode("unicode_escape").decode()


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return near[0] if near else ""


def _describe(kind: str) -> str:
    return "the configuration" if kind == "ModelConfig" else f"a {kind}"
