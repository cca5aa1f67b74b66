"""One load test by `locust --headless`, as a person would start it, and what it found."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tritonkit.errors import CheckFailed, InputError, MissingError
from tritonkit.server.ports import free_ports
from tritonkit_load.load.payloads import split_version
from tritonkit_load.load.plan import Plan
from tritonkit_load.load.result import Result

LOCUSTFILE = Path(__file__).parents[1] / "locustfile.py"
LOCAL = "127.0.0.1"
ENDS_S = 20.0  # after Ctrl-C, for the answers in flight and the result
_ERRORS = {InputError.exit_code: InputError, CheckFailed.exit_code: CheckFailed, MissingError.exit_code: MissingError}


def command(
    plan: Plan, host: str, user: str, recipes: Sequence[Path], *, processes: int = 1, slo: str = "",
    metrics_url: str = "", record: Path | None = None,
) -> list[str]:  # fmt: skip
    """The arguments of `locust`; what is a default is left out.

    Raises:
        InputError: As `run_time`.
    """
    options = {
        "--host": host, "--run-time": run_time(plan), "--warm-up": f"{plan.warm_up_s:g}",
        "--arrivals": plan.arrivals or "",
        "--users": "" if plan.open else str(plan.users), "--spawn-rate": "" if plan.open else str(plan.spawn_rate),
        "--processes": str(processes) if processes > 1 else "", "--seed": str(plan.seed) if plan.seed else "",
        "--mix": _mix(plan),
        "--batch-sizes": plan.batch_sizes, "--lengths": plan.lengths, "--slo": slo, "--metrics-url": metrics_url,
        "--record": str(record or ""),
    }  # fmt: skip
    flags = [word for name, value in options.items() if value for word in (name, value)]
    recipe_flags = [word for path in recipes for word in ("--recipe", str(path))]
    return ["-f", str(LOCUSTFILE), *recipe_flags, "--headless", *flags, *(_meeting() if processes > 1 else ()), user]


def _mix(plan: Plan) -> str:
    """The models with their weights, where the recipes alone do not say what is sent: several, or a version of one."""
    if len(plan.models) > 1 or any(split_version(name)[1] for name in plan.models):
        return ",".join(f"{name}:{weight:g}" for name, weight in plan.models.items())
    return ""


def _meeting() -> list[str]:
    """Where Locust's processes meet: not where those of another test do, which then would get each other's workers."""
    port = str(free_ports(1)[0])
    return ["--master-bind-host", LOCAL, "--master-bind-port", port, "--master-host", LOCAL, "--master-port", port]


def run_time(plan: Plan) -> str:
    """Locust's ``--run-time``; empty for a recording's own time.

    Raises:
        InputError: The test does not last for whole seconds, which is all that Locust knows.
    """
    total_s = plan.warm_up_s + plan.duration_s
    if plan.duration_s and total_s % 1:
        raise InputError(f"warm-up and duration are {total_s:g} s together", "whole seconds")
    return f"{total_s:.0f}" if plan.duration_s else ""


def run(arguments: Sequence[str]) -> Result:
    """Run `locust` with these arguments; Ctrl-C ends the test early, and the result is then marked partial.

    Raises:
        InputError: Locust, or our part of it, could not use what it was given; nobody answered at the host.
        CheckFailed: Locust ended without a result.
    """
    with tempfile.TemporaryDirectory(prefix="tritonkit-load-") as directory:
        path, log = Path(directory, "result.json"), Path(directory, "locust.log")
        words = [sys.executable, "-m", "locust", *arguments, "--only-summary", "--result", str(path)]
        with log.open("wb") as output:
            # In a session of its own, so that Ctrl-C reaches its workers through it, and once.
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ | {"PYTHONWARNINGS": "ignore"},
            )  # fmt: skip
            interrupted = _wait(process)
        log_text = log.read_text(encoding="utf-8", errors="replace")
        if interrupted and not path.exists():
            raise CheckFailed("the test was interrupted before it began", "let it run")
        if not path.exists():
            raise CheckFailed(
                f"Locust ended without a result (status {process.returncode}):\n{log_text[-2000:]}", shlex.join(words)
            )
        data = json.loads(path.read_text(encoding="utf-8"))
    if "error" in data:
        raise _ERRORS.get(data["exit_code"], CheckFailed)(data["error"], data["fix"])
    return Result.from_json(data)


def _wait(process: subprocess.Popen[bytes]) -> bool:
    """Wait for its end; a first Ctrl-C asks it to end, a second one kills it. Returns whether there was one."""
    try:
        process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
            process.wait(ENDS_S)
        return True
    else:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # workers that are left
        process.wait()
