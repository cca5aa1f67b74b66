"""Rebuilds: nothing is done twice, nothing that changed is missed, and a kill never leaves half a repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import NET, Project

from tritonkit import atomic, environment, graph, pipeline, recipe
from tritonkit.errors import OutputError

WITH_FILES = """
import torch
from pathlib import Path
import neighbour

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.tensor(float(Path(__file__).with_name("scale.txt").read_text()))
        self.weights = torch.load(Path(__file__).with_name("weights.pt"))

    def forward(self, x):
        return x[:, :3] * self.scale * self.weights * neighbour.FACTOR

def load():
    return Net()
"""


def exported(project: Project) -> list[str]:
    status, out, err = project.build("--json")
    assert status == 0, err
    names: list[str] = json.loads(out)["exported"]
    return names


def test_an_unchanged_rebuild_exports_nothing_and_changes_nothing(project: Project) -> None:
    project.write()
    assert exported(project) == ["net"]
    before = {path: path.stat().st_mtime_ns for path in project.repository.rglob("*")}
    assert exported(project) == []
    assert {path: path.stat().st_mtime_ns for path in project.repository.rglob("*")} == before


WITH_VARIABLES = NET.replace(
    "return Net()",
    """net = Net()
    net.linear.weight.data *= float(os.environ.get("NET_SCALE", "1"))
    subprocess.run(["true"], env=os.environ | {"CHILD": "1"}, check=True)
    return net""",
).replace("import torch", "import os, subprocess, torch")


def test_only_variables_that_user_code_reads_are_dependencies(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NET_SCALE", raising=False)
    project.write(WITH_VARIABLES)
    assert exported(project) == ["net"]
    (about,) = project.artifacts()
    assert json.loads(about.read_text())["dependencies"]["variables"] == {"NET_SCALE": ""}
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    assert exported(project) == []
    monkeypatch.setenv("NET_SCALE", "2.53125")
    assert exported(project) == ["net"]
    assert "2.53125" not in "".join(path.read_text() for path in project.artifacts()), "a value may be a secret"
    monkeypatch.delenv("NET_SCALE")
    assert exported(project) == []


def test_variables_are_noted_however_user_code_reads_them(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "os.getenv('A')\n'B' in os.environ\nos.environ.get('C', '')\nos.environ.setdefault('D', '')\n"
        "dict(os.environ), list(os.environ.items())\ndel os.environ['D']\n"
    )
    library = tmp_path / "lib/site-packages/package.py"
    library.parent.mkdir(parents=True)
    library.write_text(code.replace("'A'", "'OF_A_LIBRARY'"))
    with environment.noting() as reads:
        exec(compile(code, str(tmp_path / "net.py"), "exec"), {})
        exec(compile(library.read_text(), str(library), "exec"), {})
    assert {"A", "B", "C", "D"} <= reads.of([])
    assert not {"OF_A_LIBRARY", "PATH"} & reads.of([])
    assert "OF_A_LIBRARY" in reads.of([library.parent]), "a package that the recipe names is the user's code"
    os.getenv("AFTER")
    assert "AFTER" not in reads.of([tmp_path, Path(__file__).parent])


def test_an_unchanged_rebuild_does_not_import_torch(project: Project) -> None:
    project.write()
    exported(project)
    code = (
        "import sys; from tritonkit import cli; "
        f"code = cli.main(['build', 'net.yaml', '--repository', {str(project.repository)!r}]); "
        "assert 'torch' not in sys.modules and 'onnxruntime' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project.directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "unchanged" in done.stdout


def write_with_files(project: Project) -> None:
    directory = project.directory
    project.write(WITH_FILES)
    (directory / "neighbour.py").write_text("FACTOR = 1.0\n")
    (directory / "scale.txt").write_text("2.0")
    torch.save(torch.ones(3), directory / "weights.pt")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: (d / "net.py").write_text(WITH_FILES + "\n# changed\n"),
        lambda d: (d / "neighbour.py").write_text("FACTOR = 3.0\n"),
        lambda d: (d / "scale.txt").write_text("5.0"),
        lambda d: torch.save(torch.zeros(3), d / "weights.pt"),
        lambda d: (d / "net.yaml").write_text((d / "net.yaml").read_text() + "max_batch_size: 4\n"),
    ],
    ids=["source", "module beside it", "file it opens", "weights", "recipe"],
)
def test_a_change_of_what_the_export_read_exports_again(project: Project, change: Callable[[Path], object]) -> None:
    write_with_files(project)
    assert exported(project) == ["net"]
    assert exported(project) == []
    change(project.directory)
    assert exported(project) == ["net"]
    assert exported(project) == []


def test_modules_of_one_name_beside_two_recipes_are_not_mixed_up(project: Project) -> None:
    """Also when a function imports its neighbour only when it is called."""
    code = NET.replace("self.linear(x)", "x[:, :3] * FACTOR").replace(
        "def load():", "def load():\n    global FACTOR\n    from neighbour import FACTOR"
    )
    paths = []
    for number in (1, 2):
        directory = project.directory / str(number)
        directory.mkdir()
        paths.append(project.write(code, name=f"net{number}").rename(directory / "net.yaml"))
        (directory / "net.py").write_text(code)
        (directory / "neighbour.py").write_text(f"FACTOR = {number}.0\n")
    status, _, err = project.run("build", *paths, "--repository", project.repository)
    assert status == 0, err
    ones = np.ones((1, 4), np.float32)
    for number in (1, 2):
        session = graph.Session(project.repository / f"net{number}/1/model.onnx")
        assert session.run({"x": ones})["y"].tolist() == [[number] * 3]


def test_weights_that_only_native_code_reads_are_noticed(project: Project) -> None:
    from safetensors.torch import save_file

    write_with_files(project)
    weights = project.directory / "native.safetensors"
    save_file({"w": torch.ones(3)}, weights)
    code = WITH_FILES.replace(
        'torch.load(Path(__file__).with_name("weights.pt"))',
        f"__import__('safetensors.torch').torch.load_file({str(weights)!r})['w']",
    )
    project.write(code)
    assert exported(project) == ["net"]
    save_file({"w": torch.zeros(3)}, weights)
    assert exported(project) == ["net"]


def test_a_touched_file_with_equal_content_exports_nothing(project: Project) -> None:
    write_with_files(project)
    exported(project)
    os.utime(project.directory / "scale.txt")
    assert exported(project) == []


def test_batching_changes_the_configuration_without_an_export(project: Project) -> None:
    project.write()
    exported(project)
    graph = project.files()["net/1/model.onnx"]
    project.write(batching={"instances": 3})
    assert exported(project) == []
    assert b"count: 3" in project.files()["net/config.pbtxt"]
    assert project.files()["net/1/model.onnx"] == graph


def test_a_damaged_artifact_is_made_again(project: Project) -> None:
    project.write()
    exported(project)
    (artifact,) = project.artifacts()
    artifact.write_text("{")
    assert exported(project) == ["net"]


def test_models_that_are_not_being_built_stay_as_they_are(project: Project) -> None:
    mine = project.repository / "mine/1/model.py"
    mine.parent.mkdir(parents=True)
    mine.write_text("# by hand")
    (project.repository / "notes.txt").write_text("keep")
    project.write()
    exported(project)
    assert mine.read_text() == "# by hand"
    assert (project.repository / "notes.txt").read_text() == "keep"
    assert (project.repository / "net/1/model.onnx").is_file()


def test_a_configuration_edited_by_hand_is_refused_with_a_diff_and_kept(project: Project) -> None:
    project.write()
    exported(project)
    path = project.repository / "net/config.pbtxt"
    edited = path.read_text().replace("count: 2", "count: 7")
    path.write_text(edited)
    project.write(batching={"max_queue_delay_us": 5})
    status, _, err = project.build()
    assert status == 2
    assert "edited by hand" in err
    assert "-  count: 7" in err
    assert path.read_text() == edited
    assert project.build("--overwrite")[0] == 0
    assert "count: 7" not in path.read_text()


# Builds the second state over the first again and again, in a fork that kills itself at its first, second, third ...
# call to the operating system that Python can see, until one gets through; prints what each left behind.
KILL_AT_EVERY_STEP = """
import json, os, signal, sys
from pathlib import Path
from tritonkit import pipeline, recipe

directory = Path(sys.argv[1])
repository = directory / "model_repository"
base = recipe.load(directory / "net.yaml")

def build(delay):
    batching = recipe.Batching(max_queue_delay_us=delay)
    both = [base.model_copy(update={"name": name, "batching": batching}) for name in ("one", "two")]
    pipeline.build(both, repository, "cpu")

def state():
    files = sorted(path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file())
    delays = [(repository / name / "config.pbtxt").read_text().partition("delay_microseconds: ")[2][:1] for name in ("one", "two")]
    return files, delays

build(0)
states = []
done = False
while not done:
    child = os.fork()
    if child == 0:
        left = len(states)
        def changes(event, arguments):  # to be killed between two reads is to be killed before the next change
            if event == "open":
                return arguments[2] & (os.O_WRONLY | os.O_RDWR)
            return event.startswith(("os.", "shutil.", "ctypes.")) and event not in ("os.kill", "os.listdir", "os.scandir")
        def hook(event, arguments):
            global left
            if changes(event, arguments):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        build(1)
        os._exit(0)
    done = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    states.append(state())
    build(0)
print(json.dumps(states))
"""


def test_a_build_killed_at_any_step_leaves_the_old_or_the_new_repository(project: Project) -> None:
    base = recipe.load(project.write())
    models = [base.model_copy(update={"name": name}) for name in ("one", "two")]
    pipeline.build(models, project.repository, "cpu")  # here, so that the process needs no PyTorch
    done = subprocess.run(
        [sys.executable, "-c", KILL_AT_EVERY_STEP, project.directory],
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    states = json.loads(done.stdout)
    whole = sorted(
        f"{model}/{name}"
        for model in ("one", "two")
        for name in ("1/model.onnx", "config.pbtxt", "passport.json", "warmup/x")
    )
    assert all(files == whole for files, _ in states)
    delays = ["".join(pair) for _, pair in states]
    assert set(delays) == {"", "11"}, "one model is old and the other new"  # a delay of 0 is not written
    assert delays == sorted(delays), "once new, always new"
    assert len(delays) > 30
    assert not list(project.directory.glob(".tritonkit-*")), "leftovers of the killed are swept"


def test_directories_are_exchanged_in_one_step_or_not_at_all(tmp_path: Path) -> None:
    old, new = tmp_path / "target", tmp_path / "new"
    for place, text in ((old, "old"), (new, "new")):
        place.mkdir()
        (place / "file").write_text(text)
    handle = os.open(old, os.O_RDONLY)  # someone who has the old one open keeps it whole
    atomic.put(new, old)
    assert (old / "file").read_text() == "new"
    assert (new / "file").read_text() == "old"
    assert os.listdir(handle) == ["file"]  # noqa: PTH208 (by descriptor)
    os.close(handle)


def test_a_mount_point_cannot_be_exchanged_and_says_so(tmp_path: Path) -> None:
    new, target = tmp_path / "new", tmp_path / "target"
    new.mkdir()
    target.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", target], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        with pytest.raises((OutputError, OSError)) as caught, atomic.explained(target):
            atomic.put(new, target)
        assert new.exists()
        assert isinstance(caught.value, OutputError), caught.value
    finally:
        subprocess.run(["umount", target], check=True)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    atomic.write(path, b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Exception, match="no space left"):
        atomic.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_files_of_a_folder_are_written_together_and_others_in_it_stay(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    atomic.put_files(folder, {"index.html": "1", "result.json": "1"})
    (folder / "NOTES.md").write_text("mine")
    (folder / "before").mkdir()
    (folder / "before/index.html").write_text("copied away")
    atomic.put_files(folder, {"index.html": "2", "result.json": "2"})
    files = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert files == {"index.html": "2", "result.json": "2", "NOTES.md": "mine", "before/index.html": "copied away"}


def test_arrays_of_samples_are_cut_and_continued_to_the_sizes_wanted(project: Project) -> None:
    from tritonkit import samples

    dynamic = {"dtype": "int64", "dims": ["n"]}
    loaded = recipe.load(
        project.write(inputs={"x": dynamic}, outputs={"y": dynamic}, shapes={"n": {"min": 1, "opt": 3, "max": 7}})
    )
    sample = {"x": np.array([5, 6, 7])}
    assert samples.resized(sample, loaded, {"n": 2})["x"].tolist() == [5, 6]
    assert samples.resized(sample, loaded, {"n": 7})["x"].tolist() == [5, 6, 7, 5, 6, 7, 5]


def test_an_interrupted_build_says_what_is_kept_and_writes_no_model(project: Project) -> None:
    project.write("import os, signal\ndef load():\n    os.kill(os.getpid(), signal.SIGINT)\n")
    status, _, err = project.build()
    assert status == 130
    assert f"interrupted: {project.repository} is as it was" in err
    assert not project.files()
