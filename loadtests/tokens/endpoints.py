"""Two endpoints of the same language model: tensors through Triton over gRPC, and its OpenAI API over HTTP.

Each sends a prompt and gives the parts of the answer as they come, with the number of tokens in each. Nothing is timed
here.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Protocol, cast
from urllib.parse import urlsplit

import numpy as np

from tritonkit_client import Client

TIMEOUT_S = 600.0  # of a whole answer
_OPENING = threading.Lock()


@dataclass(frozen=True)
class Request:
    """What is asked: the most probable token each time, and exactly so many of them."""

    prompt: str
    tokens: int

    @property
    def sampling(self) -> dict[str, object]:
        """The parameters that both endpoints have names for."""
        return {"max_tokens": self.tokens, "temperature": 0, "ignore_eos": True}


@dataclass(frozen=True)
class Part:
    """What came at once: text, and the number of tokens that it is."""

    text: str
    tokens: int


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
        self._host, self._port, self._path = parts.hostname or "", parts.port, f"{parts.path}/completions"
        self._model = model

    def stream(self, request: Request) -> Iterator[Part]:
        """See :meth:`Endpoint.stream`."""
        body = {"model": self._model, "prompt": request.prompt, "stream": True, "return_token_ids": True}
        with closing(http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)) as connection:
            connection.request(
                "POST", self._path, json.dumps(body | request.sampling), {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            if answer.status != 200:
                raise OSError(f"status {answer.status}: {answer.read().decode(errors='replace')[:500]}")
            for line in answer:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise OSError(f"in the middle of the answer: {event['error']}")
                for choice in event["choices"]:
                    yield Part(choice["text"], len(choice.get("token_ids") or ()))


@cache
def _open(url: str) -> Client:
    return Client(url, timeout=TIMEOUT_S)


def _client(url: str) -> Client:
    """The one client of this process; all streams share its connection, as an application's do."""
    with _OPENING:
        return _open(url)
