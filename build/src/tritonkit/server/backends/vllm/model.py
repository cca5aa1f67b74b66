"""tritonkit's vLLM backend for the embedded Triton: the contract of NVIDIA's, answered by vLLM's own server as a child.

vLLM needs numpy 2 and Triton 24.10's Python stub numpy 1, so it runs in an environment of its own and is spoken to over
its OpenAI API (docs/decisions/0027). Runs in the server's own environment and imports nothing of tritonkit.
"""

import asyncio
import contextlib
import fcntl
import json
import locale
import os
import sys
import threading
import time
from pathlib import Path

locale.setlocale(locale.LC_ALL, "C.UTF-8")  # the stub starts in ASCII, whatever the environment says

import triton_python_backend_utils as pb_utils  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent))  # Triton puts the model's folder there, not the backend's
from vllm_engine import EngineProcess, SettingsError, StartFailed, call, read_settings  # noqa: E402
from vllm_engine.arguments import available_memory, check_memory  # noqa: E402
from vllm_engine.calls import Calls  # noqa: E402
from vllm_engine.reporting import Reporter  # noqa: E402

# What `tritonkit serve` says of this machine.
PYTHON = "TRITONKIT_VLLM_PYTHON"  # the interpreter of vLLM's environment
DEVICE = "TRITONKIT_VLLM_DEVICE"  # cpu or cuda: what that vLLM was built for
LIBRARIES = "TRITONKIT_LIBRARY_PATH"  # LD_LIBRARY_PATH as it was
DIRECTORY = "TRITONKIT_SERVER_DIRECTORY"  # a folder of the server's own, where it looks for the addresses
SWITCH_S = 0.0005  # how long the event loop's thread may keep the one that sends waiting; Python's default is 5 ms
LOOK_EVERY_S = 0.05  # for callers that have gone
DRAIN_S = 30.0  # for requests in flight when a model is unloaded
INPUTS = {
    "text_input": ("TYPE_STRING", 1),
    "image": ("TYPE_STRING", -1),
    "stream": ("TYPE_BOOL", 1),
    "sampling_parameters": ("TYPE_STRING", 1),
    "exclude_input_in_output": ("TYPE_BOOL", 1),
    "return_finish_reason": ("TYPE_BOOL", 1),
    "return_cumulative_logprob": ("TYPE_BOOL", 1),
    "return_logprobs": ("TYPE_BOOL", 1),
    "return_num_input_tokens": ("TYPE_BOOL", 1),
    "return_num_output_tokens": ("TYPE_BOOL", 1),
    "embedding_request": ("TYPE_STRING", 1),
}
OUTPUTS = {
    "text_output": ("TYPE_STRING", -1),
    "finish_reason": ("TYPE_STRING", -1),
    "cumulative_logprob": ("TYPE_FP32", -1),
    "logprobs": ("TYPE_STRING", -1),
    "num_input_tokens": ("TYPE_UINT32", 1),
    "num_output_tokens": ("TYPE_UINT32", -1),
}


class TritonPythonModel:
    """One instance of one model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Fill in the inputs and outputs of NVIDIA's backend; responses are decoupled and vLLM makes the batches."""
        config = auto_complete_model_config
        given = config.as_dict()
        inputs = {entry["name"] for entry in given["input"]}
        outputs = {entry["name"] for entry in given["output"]}
        for name, (data_type, dim) in INPUTS.items():
            if name not in inputs:
                entry = {"name": name, "data_type": data_type, "dims": [dim]}
                config.add_input(entry if name == "text_input" else entry | {"optional": True})
        for name, (data_type, dim) in OUTPUTS.items():
            if name not in outputs:
                config.add_output({"name": name, "data_type": data_type, "dims": [dim]})
        config.set_model_transaction_policy({"decoupled": True})
        config.set_max_batch_size(0)
        return config

    def initialize(self, args):
        """Start vLLM's server and wait until it answers."""
        sys.setswitchinterval(SWITCH_S)
        self.log = pb_utils.Logger
        self.name = args["model_name"]
        config = json.loads(args["model_config"])
        try:
            settings = self._settings(args, config)
        except SettingsError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        gpu = args["model_instance_device_id"] if args["model_instance_kind"] == "GPU" else None
        self.status = Status(args, os.environ.get(DIRECTORY))
        self.engine = EngineProcess(
            settings, os.environ[PYTHON], library_path=os.environ.get(LIBRARIES, ""),
            directory=self.status.directory, device=gpu, report=self.status.phase, log=self.log.log_warn,
        )  # fmt: skip
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        threading.Thread(target=self._end_with_server, args=(os.getppid(),), daemon=True).start()
        self._start(settings)
        longest = self._run(self._longest_context())
        self.calls = Calls(self.engine, longest, self.loop)
        self.ending = threading.Event()
        threading.Thread(target=self._watch_callers, daemon=True).start()
        labels = {"model": self.name, "version": args["model_version"]}
        custom_metrics = parameter(config, "REPORT_CUSTOM_METRICS").lower() == "true" and settings.log_stats
        reporter = Reporter(self.engine, labels, of_engine=custom_metrics)
        self.tasks = [asyncio.run_coroutine_threadsafe(reporter.report(), self.loop)]
        self.tasks.append(asyncio.run_coroutine_threadsafe(self.engine.keep(self._restarted), self.loop))
        self.status.ready(self.engine.port)

    def execute(self, requests):
        """Hand requests on; their responses come when they come."""
        for request in requests:
            self.calls.begin(request)

    def finalize(self):
        """Let requests in flight finish, then end vLLM's server."""
        deadline = time.monotonic() + DRAIN_S
        while self.calls.open and self.engine.ready and time.monotonic() < deadline:
            time.sleep(0.05)
        self.ending.set()
        for task in self.tasks:
            task.cancel()
        self._run(self.engine.stop())
        self.calls.close()
        self.status.gone()
        self.loop.call_soon_threadsafe(self.loop.stop)

    def _settings(self, args, config):
        if not pb_utils.using_decoupled_model_transaction_policy(config):
            raise SettingsError(f"{self.name} must be decoupled: model_transaction_policy {{ decoupled: true }}")
        if not os.environ.get(PYTHON):
            raise SettingsError(
                f"{self.name} runs with vLLM, which this server was started without: "
                "`tritonkit install-server --engine vllm`, then start the server again"
            )
        directory = Path(args["model_repository"], args["model_version"])
        on_cpu = os.environ.get(DEVICE, "cpu") == "cpu"
        settings = read_settings(directory, self.name, args["model_instance_kind"], on_cpu=on_cpu)
        if parser := parameter(
            config, "tool_call_parser"
        ):  # of its OpenAI API alone: NVIDIA's backend has no word for it
            settings.arguments.update(enable_auto_tool_choice=True, tool_call_parser=parser)
        for note in settings.notes:
            self.log.log_info(f"{self.name}: {note}")
        return settings

    def _start(self, settings):
        """Start one model after another, so that each sees what memory those before it have left."""
        with self.status.alone():
            try:
                if settings.on_cpu:
                    check_memory(settings, available_memory())
                self._run(self.engine.start())
            except (SettingsError, StartFailed, OSError) as error:
                self.status.gone()
                raise pb_utils.TritonModelException(f"{self.name}: {error}") from error

    async def _longest_context(self):
        _, content = await call(self.engine.port, "GET", "/v1/models")
        return int(json.loads(content)["data"][0]["max_model_len"])

    def _restarted(self):
        if self.engine.ready:
            self.status.ready(self.engine.port)
        else:
            self.status.phase("vLLM ended and is started again")

    def _watch_callers(self):
        """Cancel requests whose callers have gone."""
        while not self.ending.wait(LOOK_EVERY_S):
            for waiting in list(self.calls.open):
                if waiting.task is not None and waiting.cancelled():
                    self.calls.cancel(waiting)

    def _end_with_server(self, server):
        """End this process, and with it vLLM's, when the server that started it has ended without a word."""
        while os.getppid() == server:
            time.sleep(0.1)
        self.engine.kill()
        os._exit(1)

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()


class Status:
    """A file that says how far a model is and where its OpenAI API is, for whoever started the server."""

    def __init__(self, args, directory):
        self.directory = directory
        self._about = {"model": args["model_name"], "version": args["model_version"]}
        name = "-".join(("vllm", args["model_instance_name"], args["model_version"], str(os.getpid())))
        self._path = Path(directory, f"{name.replace('/', '_')}.json") if directory else None

    def phase(self, phase):
        """Write what the start is doing."""
        self._write(phase=phase)

    def ready(self, port):
        """Write that the model answers at this port."""
        self._write(url=f"http://127.0.0.1:{port}/v1")

    def gone(self):
        """Remove the file of a model that is unloaded, or could not be loaded."""
        if self._path:
            self._path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def alone(self):
        """Wait until no other model of this server is being loaded."""
        if not self._path:
            yield
            return
        with open(self._path.with_name("vllm-loading.lock"), "w") as lock:  # noqa: PTH123
            self.phase("wait for another model")
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, **state):
        if self._path:
            with contextlib.suppress(OSError):  # the server's folder goes when it ends
                part = self._path.with_suffix(".part")
                part.write_text(json.dumps(self._about | state), encoding="utf-8")
                part.replace(self._path)


def parameter(config, name):
    """A parameter of the configuration; empty where it is not set."""
    return config.get("parameters", {}).get(name, {}).get("string_value", "")
