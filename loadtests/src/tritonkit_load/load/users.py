"""The callers: Locust users that send real samples to Triton over gRPC or HTTP, or read streams of responses.

A user of another server is a subclass of `ModelUser` with three methods; when to send is :mod:`.load.session`'s.
"""

from __future__ import annotations

import functools
import time
from typing import NamedTuple

import gevent
import grpc.experimental.gevent
from locust import User, constant, task

from tritonkit.errors import InputError
from tritonkit_client import Client, DeadlineExceeded, Retry, ServerBusy, ServerError, TritonkitClientError
from tritonkit_load.load.payloads import Request
from tritonkit_load.load.serverside import Watch

TIMEOUT_S = 10.0  # a caller's patience; what takes longer counts as failed


class Answer(NamedTuple):
    """What a caller has to say of an answer: its size in bytes, and when the first response of a stream came."""

    size: int = 0
    first_s: float | None = None


class ModelUser(User):  # type: ignore[misc]
    """A caller of models. In a closed loop it sends again when the answer is there; an open loop sends through one.

    Attributes:
        protocol: What reports call the way to the server.
    """

    abstract = True
    wait_time = constant(0)
    protocol = ""

    def connect(self) -> None:
        """Make ready to call ``self.host``."""
        raise NotImplementedError

    def call(self, request: Request) -> Answer:
        """Send one request and wait for its answer; greenlets call it at the same time.

        Raises:
            Exception: Any; the request counts as failed, under the exception's type.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Disconnect."""

    def tolerates(self, _error: Exception, /) -> bool:
        """Whether a test may begin although a first request met this."""
        return False

    def watch(self, _models: tuple[str, ...], _metrics_url: str | None, /) -> Watch | None:
        """What sees the server's side of a test of these models; None where nothing does."""
        return None

    def on_start(self) -> None:
        """Connect; one connection for each user, as separate callers have."""
        self.connect()

    def on_stop(self) -> None:
        """Disconnect."""
        self.close()

    @task
    def take_part(self) -> None:
        """One request, when and if the test wants one of this user."""
        session = getattr(self.environment, "session", None)
        if session is None:
            gevent.sleep(0.1)  # a worker that came when the test was on waits for the next one
        else:
            session.take_part(self)


class TritonUser(ModelUser):
    """A caller of Triton."""

    abstract = True
    retry: Retry | None = None  # what is refused shall show

    def connect(self) -> None:
        """Make a client; it connects with its first call."""
        if not self.host or not self.host.startswith(f"{self.protocol.split()[0]}://"):
            raise InputError(
                f"{type(self).__name__} cannot call {self.host}",
                f"--host {self.protocol.split()[0]}://HOST:PORT, or another user class",
            )
        make_grpc_cooperate()
        try:
            self.client = Client(self.host, timeout=TIMEOUT_S, retry=self.retry)
        except TritonkitClientError as error:
            raise InputError(error.message, error.fix) from error

    def call(self, request: Request) -> Answer:
        """One inference."""
        name, version = request.target
        outputs = self.client.infer(name, request.inputs, model_version=version)
        return Answer(sum(array.nbytes for array in outputs.values()))

    def close(self) -> None:
        """Disconnect."""
        self.client.close()

    def tolerates(self, error: Exception, /) -> bool:
        """A model that fails is what a test may be about; one that is not there, or takes other inputs, is not."""
        return isinstance(error, ServerError | ServerBusy | DeadlineExceeded)

    def watch(self, models: tuple[str, ...], metrics_url: str | None, /) -> Watch | None:
        """Triton's statistics."""
        return Watch(self.client, models, metrics_url)


class TritonGrpcUser(TritonUser):
    """Over gRPC."""

    protocol = "grpc"


class TritonHttpUser(TritonUser):
    """Over HTTP, with binary tensors."""

    protocol = "http"


class RetryingGrpcUser(TritonGrpcUser):
    """Sends again what was refused, as the client does unless it is told not to."""

    retry = Retry()


class RetryingHttpUser(TritonHttpUser):
    """The same over HTTP."""

    retry = Retry()


class TritonStreamUser(TritonUser):
    """Of models that answer with any number of responses; a request is over when the last one is there."""

    protocol = "grpc stream"

    def call(self, request: Request) -> Answer:
        """One stream, to its end."""
        size, first_s = 0, None
        name, version = request.target
        for outputs in self.client.stream(name, request.inputs, model_version=version):
            first_s = first_s or time.perf_counter()
            size += sum(array.nbytes for array in outputs.values())
        return Answer(size, first_s)


@functools.cache
def make_grpc_cooperate() -> None:
    """Without this, one call blocks every user of the process (locust#1016); once a process, after it was forked."""
    grpc.experimental.gevent.init_gevent()
