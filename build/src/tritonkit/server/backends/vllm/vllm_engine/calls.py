"""One request of Triton's: its inputs, its way through vLLM, and the responses that its caller gets."""

import asyncio
import contextlib
import json
import queue
import threading

import numpy as np
import triton_python_backend_utils as pb_utils

from . import http_client
from .answers import FLAGS, Answer
from .http_client import ConnectionLost, EngineError
from .process import Unavailable
from .sampling import ParameterError, completion_request

PREFIX = "Error generating stream: "  # NVIDIA's backend begins its errors so
ENGINE_LOST = "EngineCore"  # vLLM's errors begin so when the process that computes has ended


class Call:
    """One request on its way; its sender is used by one thread at a time, and not after the last response."""

    def __init__(self, request):
        self.sender = request.get_response_sender()
        self.task = None
        self.answer = None
        self._lock = threading.Lock()
        self._error = None
        self._waiting = False
        self.closed = False

    def cancelled(self):
        """Whether the caller has gone, as Triton knows it."""
        with self._lock:
            return not self.closed and self.sender.is_cancelled()

    def due(self):
        """Whether the sender has to be notified that there is something to send."""
        due, self._waiting = not self._waiting, True
        return due

    def fail(self, code, message, text="N/A"):
        """End with an error."""
        self._error = (code, message, text)

    def send(self):
        """Send what there is."""
        with self._lock:
            self._waiting = False
            if self.closed:
                return
            if self._error is not None:
                code, message, text = self._error
                error = pb_utils.TritonError(message, getattr(pb_utils.TritonError, code))
                self._send([_strings("text_output", text)], True, error)
                return
            outputs, finished = self.answer.take()
            if outputs:
                self._send([pb_utils.Tensor(name, array) for name, array in outputs.items()], finished)

    def _send(self, tensors, final, error=None):
        self.closed = final
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        self.sender.send(pb_utils.InferenceResponse(output_tensors=tensors, error=error), flags)


class Calls:
    """All requests of a model: answered by one event loop, sent by one thread, so that no caller waits for another.

    Args:
        engine: The server's process.
        longest: The model's longest context, in tokens.
        loop: The event loop, which runs in a thread of its own.
    """

    def __init__(self, engine, longest, loop):
        self.open = set()
        self._engine = engine
        self._longest = longest
        self._loop = loop
        self._texts = {}
        self._due = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send_all, daemon=True)
        self._sender.start()

    def begin(self, request):
        """Take one request up; an error in it becomes its answer."""
        call = Call(request)
        self.open.add(call)
        try:
            self._engine.check()
            run = self._prepare(call, request)
        except Unavailable as error:
            self._fail(call, "UNAVAILABLE", str(error))
        except _UnknownAdapter as error:
            self._fail(call, "INVALID_ARG", str(error), str(error))
        except (ParameterError, UnicodeDecodeError, IndexError) as error:  # the last two: no UTF-8, an empty tensor
            self._fail(call, "INVALID_ARG", f"{PREFIX}{error}")
        else:
            self._loop.call_soon_threadsafe(self._start, call, run)

    def cancel(self, call):
        """End a request whose caller has gone; its connection to vLLM is closed, which ends it there."""
        self._loop.call_soon_threadsafe(lambda: call.task and call.task.cancel())

    def close(self):
        """End the thread that sends."""
        self._due.put(None)
        self._sender.join(5)

    def _prepare(self, call, request):
        """The coroutine function that answers a request."""
        embedding = _text(request, "embedding_request")
        if embedding is not None:
            return lambda: self._embed(call, embedding, _flags(request))
        if pb_utils.get_input_tensor_by_name(request, "image") is not None:
            raise ParameterError(
                "the embedded server takes no images by tensor; send them to the OpenAI address that "
                "`tritonkit serve` prints"
            )
        prompt = _text(request, "text_input")
        if not prompt:
            raise ParameterError("text_input is empty, and vLLM continues a text of at least one token")
        stream = _flag(request, "stream")
        exclude = _flag(request, "exclude_input_in_output", default=stream)
        if stream and not exclude:
            raise ParameterError("When streaming, `exclude_input_in_output` = False is not allowed.")
        parameters = _text(request, "sampling_parameters")
        body, adapter = completion_request(request.parameters() if parameters is None else parameters, self._longest)
        settings = self._engine.settings
        if adapter is not None:
            if not settings.arguments.get("enable_lora"):
                raise _UnknownAdapter("LoRA feature is not enabled.")
            if adapter not in settings.adapters:
                raise _UnknownAdapter(
                    f"LoRA {adapter} is not supported, we currently support {list(settings.adapters)}"
                )
        call.answer = Answer(prompt, body, stream=stream, prepend=not exclude, flags=_flags(request))
        return lambda: self._generate(call, call.answer.request(adapter or settings.name))

    def _start(self, call, run):
        call.task = self._loop.create_task(self._run(call, run))

    async def _run(self, call, run):
        try:
            await run()
        except asyncio.CancelledError:
            self._fail(call, "CANCELLED", "Request was cancelled")
        except EngineError as error:
            if error.status >= 500 and str(error).startswith(ENGINE_LOST):
                self._fail(call, "UNAVAILABLE", await self._engine.lost())
            else:
                code = "INVALID_ARG" if error.status < 500 else "INTERNAL"
                self._fail(call, code, f"{PREFIX}{error}")
        except ConnectionLost:
            self._fail(call, "UNAVAILABLE", await self._engine.lost())
        except Exception as error:
            self._fail(call, "INTERNAL", f"{PREFIX}{type(error).__name__}: {error}")

    async def _generate(self, call, body):
        port, path = self._engine.port, "/v1/completions"
        if not call.answer.stream:
            await self._take_up(call, await http_client.post(port, path, body))
            return
        async with contextlib.aclosing(http_client.events(port, path, body)) as stream:
            async for event in stream:
                await self._take_up(call, event)
        if not call.answer.finished:
            raise ConnectionLost("the stream ended before its end")

    async def _take_up(self, call, event):
        tokens = call.answer.tokens(event)
        for token in tokens.difference(self._texts):
            text = await http_client.post(self._engine.port, "/detokenize", {"tokens": [token]})
            self._texts[token] = text["prompt"]
        call.answer.add(event, {token: self._texts[token] for token in tokens})
        self._notify(call)

    async def _embed(self, call, embedding, flags):
        try:
            request = json.loads(embedding)
            body = {"model": self._engine.settings.name, "input": request["input"]}
            if dimensions := request.get("pooling_params", {}).get("dimensions"):
                body["dimensions"] = dimensions[0]
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            self._fail(call, "INVALID_ARG", f"{PREFIX}embedding_request cannot be read: {error!r}")
            return
        value = await http_client.post(self._engine.port, "/v1/embeddings", body)
        call.answer = _Embedding(value, flags)
        self._notify(call)

    def _fail(self, call, code, message, text="N/A"):
        call.fail(code, message, text)
        self._notify(call)

    def _notify(self, call):
        if call.due():
            self._due.put(call)

    def _send_all(self):
        while (call := self._due.get()) is not None:
            try:
                call.send()
            except Exception as error:
                call.closed = True
                pb_utils.Logger.log_error(f"a response could not be sent: {error}")
            if call.closed:
                self.open.discard(call)


class _Embedding:
    """The answer to an embedding request, as :class:`Answer` is one to a prompt."""

    def __init__(self, value, flags):
        self._outputs = {"text_output": _array(json.dumps(value["data"][0]["embedding"]))}
        if "return_num_input_tokens" in flags:
            self._outputs["num_input_tokens"] = np.array([value["usage"]["prompt_tokens"]], np.uint32)
        if "return_num_output_tokens" in flags:
            self._outputs["num_output_tokens"] = np.array([0], np.uint32)

    def take(self):
        outputs, self._outputs = self._outputs, {}
        return outputs, True


class _UnknownAdapter(ValueError):
    """The request names an adapter that is not served."""


def _text(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    value = tensor.as_numpy().reshape(-1)[0]
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _flag(request, name, default=False):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else bool(tensor.as_numpy().reshape(-1)[0])


def _flags(request):
    return {name for name in FLAGS if _flag(request, name)}


def _array(text):
    return np.array([text.encode("utf-8")], dtype=object)


def _strings(name, text):
    return pb_utils.Tensor(name, _array(text))
