"""Every error that the client raises on purpose, and the table that turns a failed call into an error.

::

    TritonkitClientError
    ├── InvalidEndpoint        the address given to the client cannot be used
    ├── ClientClosed           the client was closed, or belongs to another process or event loop
    ├── ConnectionFailed       nobody answered: refused, reset, unknown host
    ├── DeadlineExceeded       no answer within the timeout
    ├── Unauthenticated        the server wants credentials, or does not accept these
    ├── InvalidInput           what was given does not fit the model; most are found before anything is sent
    ├── ModelNotFound          the server has no model of that name or version
    ├── ModelNotReady          the server knows the model but cannot serve it: unloaded, or failed to load
    ├── ServerBusy             the server is there but did not take the request now
    │   └── QueueFull          the model's queue holds as many requests as its configuration allows
    └── ServerError            the server failed, or what answered is not KServe v2
        └── NotSupported       the server, or this protocol, does not have the operation

The table below has gRPC status names, HTTP status codes and the messages of Triton and of other servers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NO_CONNECTION = "NO_CONNECTION"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
CLIENT_CLOSED = "CLIENT_CLOSED"
NO_RESPONSE = "NO_RESPONSE"


@dataclass(slots=True)
class Origin:
    """Which call an error belongs to: endpoint, model, request id and version, each empty where it does not apply."""

    endpoint: str = ""
    model: str = ""
    request_id: str = ""
    version: str = ""

    def __str__(self) -> str:
        named = (("model", self.model), ("request", self.request_id), ("at", self.endpoint))
        return ", ".join(f"{word} {value}" for word, value in named if value)


class TritonkitClientError(Exception):
    """Base of all errors of this package.

    Args:
        message: What is wrong, as one sentence.
        fix: What the caller can do about it.
        origin: The call in which it happened.

    Attributes:
        message, fix: As given.
        endpoint, model, request_id: From the origin; empty where they do not apply. Of several servers, the
            endpoint is that of the last attempt.
        attempts: How often the call was sent; 0 where the mistake was found before it was sent.
        text: What a language model had answered before, in the middle of a stream; else empty.
    """

    def __init__(self, message: str, fix: str = "", origin: Origin | None = None) -> None:
        # All arguments reach Exception.args, so that an error survives pickling between processes.
        super().__init__(message, fix, origin)
        where = origin or Origin()
        self.message = message
        self.fix = fix
        self.endpoint = where.endpoint
        self.model = where.model
        self.request_id = where.request_id
        self.attempts = 0
        self.text = ""

    def __str__(self) -> str:
        where = str(Origin(self.endpoint, self.model, self.request_id))
        where += f", after {self.attempts} attempts" if self.attempts > 1 else ""
        text = f"{self.message} ({where})" if where else self.message
        return f"{text}\n  fix: {self.fix}" if self.fix else text


class InvalidEndpoint(TritonkitClientError):
    """The address given to the client cannot be used."""


class ClientClosed(TritonkitClientError):
    """The client was closed, or belongs to another process or event loop."""


class ConnectionFailed(TritonkitClientError):
    """Nobody answered: connection refused or reset, or an unknown host."""


class DeadlineExceeded(TritonkitClientError):
    """No answer came within the timeout."""


class Unauthenticated(TritonkitClientError):
    """The server wants credentials, or does not accept the ones that were sent."""


class InvalidInput(TritonkitClientError):
    """What was given does not fit the model."""


class ModelNotFound(TritonkitClientError):
    """The server has no model of that name or version."""


class ModelNotReady(TritonkitClientError):
    """The server knows the model but cannot serve it."""


class ServerBusy(TritonkitClientError):
    """The server is there but did not take the request now."""


class QueueFull(ServerBusy):
    """The model's queue holds as many requests as its configuration allows."""


class ServerError(TritonkitClientError):
    """The server failed, or what answered is not KServe v2."""


class NotSupported(ServerError):
    """The server, or this protocol, does not have the operation."""


@dataclass(frozen=True)
class _Row:
    """One row of the table: it applies to any of ``statuses`` whose message contains ``pattern``.

    No statuses means every status; an empty pattern fits every message.
    """

    statuses: tuple[int | str, ...]
    pattern: str
    error: type[TritonkitClientError]
    says: str
    fix: str


# Words of gRPC core and of proxies for a connection that failed: both use UNAVAILABLE (a proxy: 503) for it, the status
# with which Triton itself refuses work.
_CONNECTION_WORDS = "connect|socket|resol|goaway|transport|endpoint|stream removed|broken pipe|network|no route"

_CERTIFICATE_WORDS = "certificate|handshake|ssl routines|tlsv1|\\bssl\\b|hostname .*match|verification check"

_CHECK_ADDRESS = "check address and port (Triton: 8000 for http://, 8001 for grpc://) and that the server runs"
# The statuses with which releases of Triton, MLServer, KServe's server and OpenVINO Model Server say that a model is
# not there or not ready.
_ABSENT = ("NOT_FOUND", "INVALID_ARGUMENT", "UNAVAILABLE", "UNKNOWN", 404, 400, 503)
# Triton; MLServer and KServe (also of a whole server); OpenVINO Model Server, over gRPC and HTTP; the class of an
# exception that a Python server did not turn into a status, as gRPC quotes it.
_NOT_READY_WORDS = (
    r"has no available versions|not at ready state"
    r"|(model|models|server)\b.* (is|are) not (ready|live)\b"
    r"|(version|pipeline|graph|mediapipe)\b.* is (retired|not loaded)"
    r"|'ModelNotReady'|errors\.ModelNotReady"
)
# Triton; MLServer, OpenVINO Model Server; KServe; TorchServe.
_NOT_FOUND_WORDS = (
    r"unknown model|requested model .* is not available"
    r"|(model|graph)\b.* not found"
    r"|model with name .* does not exist|model version: .* does not exist"
)

# Words of vLLM and TensorRT-LLM for a prompt that is too long, or too long with its answer.
_TOO_LONG_WORDS = "maximum (model|context|input) length|max_(model|seq|input)_len|max_num_tokens"
# The prefix that the backends of both put in front of an engine's exception, and the words with which engines, and
# tritonkit's own backend, refuse a value (vllm/sampling_params.py, tensorrt_llm/sampling_params.py).
_ENGINE_REFUSES = (
    r"^error generating (stream|request): .*\b"
    r"(must|cannot be|should be|requires?|expected|unexpected keyword|invalid|is no|is empty|not a|not true or false)\b"
)

# The first row that applies wins. Triton's sentences are those of release 24.10 (core:
# `InferenceServer::GetModel`, the schedulers' queue policies); the two protocols carry the same ones.
_TABLE = (
    _Row(
        (CLIENT_CLOSED,), "", ClientClosed,
        "the client is closed",
        "close it after its last call has ended",
    ),
    _Row(
        (DEADLINE_EXCEEDED, 408, 504), "", DeadlineExceeded,
        "no answer within the timeout",
        "raise timeout=, or find out with client.statistics(model) where the server spends its time",
    ),
    _Row(
        (NO_RESPONSE,), "", DeadlineExceeded,
        "the stream has had no response for too long",
        "raise idle_timeout=, or see in the server's log what the model is doing",
    ),
    _Row(
        (NO_CONNECTION, "UNAVAILABLE"), _CERTIFICATE_WORDS, ConnectionFailed,
        "no encrypted connection could be made",
        "check tls=: the authority that signed the server's certificate, and whether the server wants one of yours",
    ),
    _Row(
        (NO_CONNECTION, 502), "", ConnectionFailed,  # 502: a gateway's status for it
        "the server cannot be reached",
        _CHECK_ADDRESS,
    ),
    _Row(
        # Triton's restricted APIs answer UNAVAILABLE over gRPC, and 403 over HTTP.
        ("UNAVAILABLE", 403), "restricted, expecting header", Unauthenticated,
        "the server restricts this operation",
        "pass the header that it names with headers=",
    ),
    _Row(
        ("UNAUTHENTICATED", "PERMISSION_DENIED", 401, 403), "", Unauthenticated,
        "the server does not accept the credentials",
        "pass token= or headers=, or a certificate with tls=",
    ),
    _Row(
        _ABSENT, _NOT_READY_WORDS, ModelNotReady,
        "the model is not ready",
        "see the server's log for why it did not load, or load it",
    ),
    _Row(
        (500,), "^error while loading a (model|network)", ModelNotReady,  # OpenVINO Model Server
        "the model is not ready",
        "see the server's log for why it did not load",
    ),
    _Row(
        _ABSENT, _NOT_FOUND_WORDS, ModelNotFound,
        "the server has no such model",
        "check the name and the version against the server's model repository",
    ),
    _Row(
        (), _TOO_LONG_WORDS, InvalidInput,
        "the prompt and its answer do not fit the model",
        "shorten the prompt, or lower max_tokens=: the model's context is the limit of both together",
    ),
    _Row(
        (), r"\bLoRA \S+ is not supported|LoRA feature is not enabled|lora_path does not exist", InvalidInput,
        "the model has no such adapter",
        "give lora= one that it has, or leave it out",
    ),
    _Row(
        (), _ENGINE_REFUSES, InvalidInput,
        "the engine refuses the request",
        "give the parameter that it names a value in its range",
    ),
    _Row(
        (), "unhealthy vLLM engine|is restarting: its vLLM process", ModelNotReady,
        "the model is not ready",
        "see the server's log for why its engine died; tritonkit's backend starts it again, NVIDIA's wants a new load",
    ),
    _Row(
        ("UNAVAILABLE", 503), "exceeds maximum queue size", QueueFull,
        "the model's queue is full",
        "send less at once, add instances, or raise max_queue_size in the model's config.pbtxt",
    ),
    _Row(
        ("UNAVAILABLE", 503), _CONNECTION_WORDS, ConnectionFailed,
        "the server cannot be reached",
        _CHECK_ADDRESS,
    ),
    _Row(
        # gRPC's own limits; Triton's queues say UNAVAILABLE.
        ("RESOURCE_EXHAUSTED",), "larger than max|exceeds (hard|soft) limit", InvalidInput,
        "the request is too large",
        "send less in one request or in its headers, or raise the limit of the server or of the proxy in front of it",
    ),
    _Row(
        (413, 431), "", InvalidInput,
        "the request is too large",
        "send less in one request or in its headers, or raise the limit of the proxy in front of the server",
    ),
    _Row(
        ("UNAVAILABLE", "RESOURCE_EXHAUSTED", 503, 429), "", ServerBusy,
        "the server did not take the request",
        "send less at once, or add instances; a queue's own timeout is set in the model's config.pbtxt",
    ),
    _Row(
        ("UNIMPLEMENTED", 400, 500, 501), "decoupled transaction policy", NotSupported,
        "the model answers with a stream",
        "use client.stream(model, ...) and a grpc:// endpoint",
    ),
    _Row(
        ("INVALID_ARGUMENT", 400, 422), "", InvalidInput,  # 422: Python servers, of a body with other fields
        "the server refused the request",
        "compare the arguments with client.metadata(model)",
    ),
    _Row(
        (501,), "", NotSupported,
        "the server does not have this",
        "leave out what it names; model_version= is for servers with versions",
    ),
    _Row(
        ("UNIMPLEMENTED", 404, 405), "", NotSupported,
        "what answers at this address does not have this operation of KServe v2",
        "check the port and, for http://, the path in front of /v2; config, statistics, repository, load and unload are"
        " Triton's own, and other servers need not have them",
    ),
    _Row(
        # The client cancels only calls that nobody waits for: here a server that stops has cancelled those in flight.
        ("CANCELLED",), "", ConnectionFailed,
        "the server ended the request before it answered",
        "it was stopping, or a proxy in front of it: see its log if it happens again",
    ),
    _Row((), "", ServerError, "the server failed", "see the server's log"),
)  # fmt: skip


# Messages of servers whose versions are numbers about any other version: Triton over gRPC and over HTTP, whose paths
# have only numbers; then OpenVINO Model Server, likewise.
_NO_VERSION = _Row(
    ("INVALID_ARGUMENT", 400, 404), "integral value|^not found$|version format|^invalid request url", InvalidInput,
    "is not a version",
    "give a number as a string, or nothing for the newest: this server's versions are numbers",
)  # fmt: skip


def error_for(status: int | str, message: str, origin: Origin) -> TritonkitClientError:
    """The error that a failed call means.

    Args:
        status: An HTTP status code, the name of a gRPC status, or `NO_CONNECTION`, `DEADLINE_EXCEEDED` or
            `CLIENT_CLOSED` where nothing came from a server.
        message: The server's, or that of the failed connection.
        origin: The call.
    """
    text = message.strip() or f"status {status}"
    if origin.version and not origin.version.isdigit() and _applies(_NO_VERSION, status, text):
        return InvalidInput(f"{origin.version!r} {_NO_VERSION.says}: {text}", _NO_VERSION.fix, origin)
    row = next(row for row in _TABLE if _applies(row, status, message))
    return row.error(f"{row.says}: {text}", row.fix, origin)


def _applies(row: _Row, status: int | str, message: str) -> bool:
    if row.statuses and status not in row.statuses:
        return False
    return re.search(row.pattern, message, re.IGNORECASE) is not None


def error_in_stream(message: str, origin: Origin) -> TritonkitClientError:
    """The error that a message inside a stream means: it comes without a status, so only its words tell.

    Triton's header ``triton_grpc_error`` would add a status; with it, the embedded server (24.10) crashed in tests.
    """
    row = next(
        (row for row in _TABLE if row.pattern and _applies(row, next(iter(row.statuses), ""), message)), _TABLE[-1]
    )
    return row.error(f"{row.says}: {message.strip()}", row.fix, origin)
