"""Two endpoints of the same language model: tensors through Triton over gRPC, and its OpenAI API over HTTP.

Each sends a prompt and gives the parts of the answer as they come, with the number of tokens in each where the server
says it. Nothing is timed here.

    OSError
    └── StreamError            what a server does wrong
        ├── Refused            it answers with an error
        ├── StreamedNothing    it answers in one piece, or with no token
        └── CutOff             it ends in the middle of an answer
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import numpy as np

from tritonkit_client import Client

TIMEOUT_S = 600.0  # of a whole answer
_OPENING = threading.Lock()


Messages = tuple[tuple[str, str], ...]  # role and content


class StreamError(OSError):
    """What a server does wrong with a stream."""


class Refused(StreamError):
    """It answers with an error."""


class StreamedNothing(StreamError):
    """It answers in one piece, or without a token."""


class CutOff(StreamError):
    """It ends in the middle of an answer."""


@dataclass(frozen=True)
class Request:
    """What is sent; the answer is the most probable token each time.

    Attributes:
        prompt: The text; empty where there are messages.
        tokens: Of the answer: exactly so many, or at most.
        messages: A conversation, whose chat template the server or the client applies.
        exact: The answer has exactly so many tokens: the end of the text does not end it.
        prompt_tokens: Of the prompt; 0 where nobody counted them.
    """

    prompt: str
    tokens: int
    messages: Messages = ()
    exact: bool = True
    prompt_tokens: int = 0

    @property
    def sampling(self) -> dict[str, object]:
        """The parameters that both endpoints have names for."""
        parameters: dict[str, object] = {"max_tokens": self.tokens, "temperature": 0}
        return parameters | ({"ignore_eos": True} if self.exact else {})

    @property
    def chat(self) -> list[dict[str, str]]:
        """The messages as OpenAI's API has them."""
        return [{"role": role, "content": content} for role, content in self.messages]


@dataclass(frozen=True)
class Part:
    """What came at once: text, and the number of tokens that it is; None where the server does not say."""

    text: str
    tokens: int | None


class Endpoint(Protocol):
    """A way to send requests; one object serves any number of threads, and goes to other processes as plain data."""

    def stream(self, request: Request) -> Iterator[Part]:
        """The parts of an answer.

        Raises:
            Exception: The server refused the request, or went away.
        """


class TritonEndpoint:
    """Streams of Triton's over gRPC, with the tensors of vLLM's backend.

    Args:
        url: ``grpc://127.0.0.1:8001``.
        model: Its name.
    """

    def __init__(self, url: str, model: str) -> None:
        self._url, self._model = url, model

    def stream(self, request: Request) -> Iterator[Part]:
        """See :meth:`Endpoint.stream`."""
        if request.messages:
            chat = _client(self._url).stream(self._model, messages=request.chat, **cast(Any, request.sampling))
            with chat as deltas:
                for delta in deltas:
                    yield Part(delta.text, None)
            return
        inputs = {
            "text_input": np.array([request.prompt], object),
            "stream": np.array([True]),
            "return_num_output_tokens": np.array([True]),
            "sampling_parameters": np.array([json.dumps(request.sampling)], object),
        }
        with closing(_client(self._url).stream(self._model, inputs)) as responses:
            for response in responses:
                text = cast(bytes, response["text_output"].tolist()[0]).decode()
                yield Part(text, int(response["num_output_tokens"][0]))


class OpenAIEndpoint:
    """Server-sent events of ``/v1/completions``, one connection a request, as vLLM's own benchmark sends them.

    Args:
        url: ``http://127.0.0.1:PORT/v1``.
        model: Its name.
    """

    def __init__(self, url: str, model: str) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._path = parts.hostname or "", parts.port, parts.path.rstrip("/")
        self._model = model

    def stream(self, request: Request) -> Iterator[Part]:
        """See :meth:`Endpoint.stream`."""
        what: dict[str, object] = {"messages": request.chat} if request.messages else {"prompt": request.prompt}
        path = f"{self._path}/{'chat/' if request.messages else ''}completions"
        body = {"model": self._model, "stream": True, "return_token_ids": True} | what | request.sampling
        with closing(http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)) as connection:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise Refused(f"status {answer.status}: {answer.read().decode(errors='replace')[:500]}")
            if (kind := answer.headers.get_content_type()) != "text/event-stream":
                raise StreamedNothing(f"the server answered in one piece ({kind}), and a stream was asked for")
            try:
                yield from _parts(answer)
            except (http.client.HTTPException, ConnectionError) as error:
                raise CutOff(f"the stream broke off: {type(error).__name__}") from error


def _parts(lines: Iterable[bytes]) -> Iterator[Part]:
    """The parts of server-sent events.

    Raises:
        CutOff: They end without a reason to end.
    """
    ended = False
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        text = line.removeprefix(b"data:").strip()
        if text == b"[DONE]":
            ended = True
            continue
        try:
            event = json.loads(text)
        except ValueError as error:
            raise CutOff(f"the stream broke off in the middle of an event: {text[:80]!r}") from error
        if "error" in event:
            raise CutOff(f"in the middle of the answer: {event['error']}")
        for choice in event.get("choices") or ():
            ended = ended or bool(choice.get("finish_reason"))
            written = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            counts = choice.get("token_ids")
            yield Part(written, None if counts is None else len(counts))
    if not ended:
        raise CutOff("the stream ended without [DONE] and without a reason to end")


@cache
def _open(url: str) -> Client:
    return Client(url, timeout=TIMEOUT_S)


def _client(url: str) -> Client:
    """The one client of this process; all streams share its connection, as an application's do."""
    with _OPENING:
        return _open(url)
