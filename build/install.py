"""Installs this checkout into a virtual environment: what `make setup` runs, and readers without make run themselves.

    python3 build/install.py        # then .venv/bin/tritonkit --help

It reports what this machine lacks before it downloads anything. Standard library only, in syntax that Python 3.6 reads:
whoever has too old a Python gets a message that says so.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

ROOT = Path(__file__).resolve().parents[1]
LEAST = (3, 11)
NEWEST = (3, 13)  # that constraints.txt has been resolved for
GIB = 2**30
VENV_GIB, SERVER_GIB = 3.5, 1.5  # what they take, and what unpacking takes beside it


def main() -> int:
    """Check, then install; the exit code: 0 done, 2 the environment is another checkout's, 3 something is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="default: .venv in the checkout")
    parser.add_argument("--check", action="store_true", help="only say what is missing")
    options = parser.parse_args()
    try:
        check_python()
        check_owner(options.venv)
        limited = check_machine()
        if not (options.venv / "bin/tritonkit").exists():
            check_disk(options.venv)
        if not options.check:
            install(options.venv, limited)
    except Missing as missing:
        sys.stderr.write("error: %s\n  fix: %s\n" % missing.args)
        return missing.code
    return 0


class Missing(Exception):
    """What is missing, and what to do about it."""

    code = 3


class Taken(Missing):
    """An environment that is somebody else's."""

    code = 2


def check_python() -> None:
    """Refuse a Python that is too old; name one that is there."""
    if sys.version_info >= LEAST:
        return
    names = ["python%d.%d" % (3, minor) for minor in range(NEWEST[1], LEAST[1] - 1, -1)]
    newer = [name for name in names if _runs(name)]
    if newer:
        fix = ("make setup PYTHON=%s" if "MAKELEVEL" in os.environ else "%s build/install.py") % newer[0]
    else:
        fix = "apt-get install python3.12 python3.12-venv, dnf install python3.12, or uv python install 3.12"
    here = "%d.%d.%d" % sys.version_info[:3]
    raise Missing("Python 3.11 or newer is needed, and %s is Python %s" % (sys.executable, here), fix)


def check_owner(venv: Path) -> None:
    """Refuse an environment that another checkout is installed in, as one behind a link may be: it would lose it."""
    for path in sorted(venv.glob("lib/python3*/site-packages/tritonkit-*.dist-info/direct_url.json")):
        origin = json.loads(path.read_text(encoding="utf-8"))  # its form: PEP 610
        other = Path(url2pathname(urlparse(origin.get("url", "")).path)).parent
        if (
            not origin.get("dir_info", {}).get("editable")
            or other.resolve() == ROOT
            or not (other / "build/install.py").exists()
        ):
            continue
        linked = venv.is_symlink()
        again = "make setup" if "MAKELEVEL" in os.environ else "python3 build/install.py"
        where = "%s (a link to %s)" % (venv, venv.resolve()) if linked else str(venv)
        problem = "%s is the environment of %s: installing would turn that checkout's commands into this one's"
        fix = "rm %s, then %s makes one of its own" % (venv, again)
        raise Taken(problem % (where, other), fix if linked else "name another folder with --venv")


def _runs(name: str) -> bool:
    """Whether a Python is there and starts; a version manager has names of those that it has not."""
    null = subprocess.DEVNULL
    return shutil.which(name) is not None and subprocess.call([name, "-c", ""], stdout=null, stderr=null) == 0


def check_machine() -> bool:
    """Refuse a machine that tritonkit cannot run on; say what a limited one cannot do, and whether it is limited."""
    support = _machine().support()
    if not support.commands:
        raise Missing(support.problem, support.fix)
    if support.problem:
        sys.stderr.write("note: %s\n  fix: %s\n" % (support.problem, support.fix))
    return not support.server


def check_disk(venv: Path) -> None:
    """Refuse disks with too little room for the packages and the server."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    home = Path(os.environ.get("TRITONKIT_HOME") or Path(cache) / "tritonkit")
    needed = {}  # type: dict[int, tuple[float, list[tuple[Path, Path]], list[str]]]
    for path, gib, other in ((venv, VENV_GIB, "clone into another disk"), (home, SERVER_GIB, "set TRITONKIT_HOME")):
        there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        disk = there.stat().st_dev
        before, places, others = needed.get(disk, (0.0, [], []))
        needed[disk] = (before + gib, [*places, (path, there)], [*others, other])
    for gib, places, others in needed.values():
        free = shutil.disk_usage(str(places[0][1])).free / GIB
        if free < gib:
            where = " and ".join(str(path) for path, _ in places)
            raise Missing("%s need %.1f GiB, and the disk has %.1f GiB free" % (where, gib, free),
                          "free some space, or %s" % ", or ".join(others))  # fmt: skip


def install(venv: Path, limited: bool) -> None:
    """Make the environment, and install the packages and the tools of development."""
    print("installing into %s (some minutes the first time)" % venv, flush=True)
    python = str(venv / "bin/python")
    extras = "cpu,torch,hf,zoo,advisor,deploy,s3" if limited else "cpu,torch,hf,zoo,advisor,deploy,tensorrt-rtx,s3"
    packages = ["-e", "build[%s]" % extras, "-e", "clients", "-e", "loadtests[compare,demo]", "--group", "dev"]
    pinned = ["-c", "constraints.txt"]
    uv = shutil.which("uv")
    if uv:
        _run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(venv)])
        _run([uv, "pip", "install", "--quiet", "--python", python, *pinned, *packages])
        return
    if not os.access(python, os.X_OK):
        _run([sys.executable, "-m", "venv", str(venv)])
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off", *pinned]
    _run([*pip, "--quiet", "--retries", "1", "pip"])  # small, so that a missing network is noticed at once
    _run([*pip, *packages])


def _run(command: "list[str]") -> None:
    """Run an installer, with the names of packages as they come; explain its failure."""
    running = subprocess.Popen(command, cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []  # type: list[str]
    for line in running.stdout or ():
        lines.append(line)
        if re.match(r"(Collecting|Installing) [^ ;(<>=!~]+", line):
            print(re.split(r"[;(<>=!~]", line)[0].strip()[:100], flush=True)
    if running.wait() == 0:
        return
    output = "".join(lines)
    if "ensurepip" in output:
        problem = "this Python makes no virtual environments: ensurepip is missing"
        raise Missing(problem, "apt-get install python%d.%d-venv, or install uv" % sys.version_info[:2])
    problem, fix = _machine().explain_installer(output)
    if problem in output:  # no failure that is known
        sys.stderr.write("".join(lines[-20:]))
    raise Missing(problem, fix)


def _machine() -> Any:
    """`tritonkit.machine`, which needs nothing that is installed."""
    sys.path.insert(0, str(ROOT / "build/src"))
    from tritonkit import machine

    return machine


if __name__ == "__main__":
    sys.exit(main())
