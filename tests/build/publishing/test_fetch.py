"""Fetching: verified, into place by a rename, repeatable, and never half a version."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from s3store import Bucket
from support import Project

from tritonkit import atomic, publishing
from tritonkit.errors import CheckFailed, MissingError, OutputError
from tritonkit.publishing import Place

HERE = "s3://models/prod"


@pytest.fixture
def remote(repository: Path, bucket: Bucket) -> Place:
    """The S3 server, with the repository published there."""
    place = publishing.parse(HERE, bucket.endpoint)
    publishing.publish(repository, place)
    return place


@pytest.fixture
def place(repository: Path, tmp_path: Path) -> Place:
    """A folder, with the repository published there."""
    place = publishing.parse(str(tmp_path / "published"))
    publishing.publish(repository, place)
    return place


def stored(place: Place, path: str) -> Path:
    """A file of the version that is current in a folder."""
    pointer = publishing.Destination(place).pointer()
    assert pointer is not None
    return Path(place.root, "versions", pointer.version, path)


def files(directory: Path) -> dict[str, bytes]:
    """What Triton sees: everything in folders."""
    paths = (path for path in directory.glob("*/**/*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def test_a_version_arrives_whole_and_a_repetition_downloads_nothing(
    place: Place, repository: Path, tmp_path: Path
) -> None:
    target = tmp_path / "models"
    assert publishing.fetch(place, target).downloaded == 4
    assert files(target).items() >= files(repository).items()
    assert {path.name for path in target.iterdir() if path.is_dir()} == {"double", "whole"}
    assert (target / "whole/1").is_dir()
    inode = (target / "double/1/model.py").stat().st_ino
    assert publishing.fetch(place, target).downloaded == 0
    assert (target / "double/1/model.py").stat().st_ino == inode


def test_a_spoilt_object_is_refused_and_a_later_attempt_goes_on(remote: Place, bucket: Bucket, tmp_path: Path) -> None:
    place = publishing.parse(remote.uri(bucket.current("prod")))  # as the chart names it
    key = f"prod/versions/{bucket.current('prod')}/double/1/model.py"
    right = bucket.get(key)
    bucket.spoil(key)
    with pytest.raises(CheckFailed, match=r"double/1/model\.py is not what was published"):
        publishing.fetch(place, tmp_path / "models")
    assert not [path for path in (tmp_path / "models").iterdir() if path.is_dir() and not path.name.startswith(".")]
    bucket.put(key, right)
    assert publishing.fetch(place, tmp_path / "models").downloaded == 1


def test_a_download_resumes_where_it_stopped_unless_it_is_spoilt(
    place: Place, repository: Path, tmp_path: Path
) -> None:
    version = publishing.versions(publishing.Destination(place))[0].manifest.version
    right = (repository / "double/1/model.py").read_bytes()
    for number, begun in enumerate((right[:50], b"x" * 50)):
        target = tmp_path / f"models{number}"
        stage = target / ".tritonkit-fetch" / version / "double/1"
        stage.mkdir(parents=True)
        (stage / "model.py.part").write_bytes(begun)
        publishing.fetch(place, target)
        assert (target / "double/1/model.py").read_bytes() == right


@pytest.mark.parametrize("how", ["missing", "short"])
def test_an_incomplete_version_is_refused_before_any_download(place: Place, tmp_path: Path, how: str) -> None:
    if how == "missing":
        stored(place, "whole/config.pbtxt").unlink()
    else:
        stored(place, "whole/config.pbtxt").write_text("x")
    with pytest.raises(CheckFailed, match=r"is not whole: .*whole/config\.pbtxt"):
        publishing.fetch(place, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_what_was_never_published_is_told_apart(remote: Place, tmp_path: Path, bucket: Bucket) -> None:
    for text, message in (
        (f"{HERE}/versions/{'0' * 16}", "there is no version 0000000000000000"),
        ("s3://models/elsewhere", "nothing is published at s3://models/elsewhere"),
    ):
        with pytest.raises(OutputError, match=message):
            publishing.fetch(publishing.parse(text, bucket.endpoint), tmp_path / "models")


def test_an_altered_manifest_is_refused(place: Place, tmp_path: Path) -> None:
    (path,) = Path(place.root, "manifests").iterdir()
    right = path.read_bytes()
    for old, new, message in (
        (b"whole/1/.empty", b"../../../.empty", "was altered"),
        (b'"files"', b'"fi', "is no manifest"),
    ):
        path.write_bytes(right.replace(old, new))
        with pytest.raises(CheckFailed, match=message):
            publishing.fetch(place, tmp_path / "models")


def test_engines_stay_on_a_restart_and_go_with_another_version(place: Place, repository: Path, tmp_path: Path) -> None:
    target = tmp_path / "models"
    publishing.fetch(place, target)
    plan = target / "double/1/model.plan"
    plan.write_text("built on this node")
    publishing.fetch(place, target)
    assert plan.exists()
    (repository / "double/labels.txt").write_text("new")
    publishing.publish(repository, place)
    assert publishing.fetch(place, target).downloaded == 1
    assert not plan.exists()


def test_foreign_files_in_a_models_folder_are_not_replaced(place: Place, repository: Path, tmp_path: Path) -> None:
    target = tmp_path / "models"
    publishing.fetch(place, target)
    theirs = target / "double/2/model.py"
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    publishing.fetch(place, target)  # the same version takes nothing away
    (repository / "double/labels.txt").write_text("new")
    publishing.publish(repository, place)
    with pytest.raises(OutputError, match=r"double/2/model\.py: no fetch brought it"):
        publishing.fetch(place, target)
    assert theirs.read_text() == "theirs"
    assert not (target / "double/labels.txt").exists()
    theirs.rename(tmp_path / "model.py")  # the fix
    publishing.fetch(place, target)
    assert (target / "double/labels.txt").exists()


def test_dropped_models_are_removed_and_foreign_ones_refused(place: Place, repository: Path, tmp_path: Path) -> None:
    target = tmp_path / "models"
    publishing.fetch(place, target)
    for path in (repository / "whole/1", repository / "whole"):
        for file in path.glob("*.pbtxt"):
            file.unlink()
        path.rmdir()
    publishing.publish(repository, place)
    publishing.fetch(place, target)
    assert {path.name for path in target.iterdir() if path.is_dir()} == {"double"}
    (target / "mine").mkdir()
    with pytest.raises(OutputError, match="holds what no fetch brought: mine"):
        publishing.fetch(place, target)
    assert (target / "mine").is_dir()


def test_of_several_pods_that_share_a_folder_one_fetches_at_a_time(place: Place, tmp_path: Path) -> None:
    target = tmp_path / "models"
    target.mkdir()
    waits = threading.Event()
    done: list[publishing.Fetched] = []

    def say(text: str) -> None:
        if text.startswith("wait for another fetch"):
            waits.set()

    with (target / ".tritonkit-fetch.lock").open("w") as another:
        fcntl.flock(another, fcntl.LOCK_EX)
        pod = threading.Thread(target=lambda: done.append(publishing.fetch(place, target, say)))
        pod.start()
        assert waits.wait(60)
        assert not files(target)
    pod.join(60)
    assert [fetched.downloaded for fetched in done] == [4]


def test_a_volume_too_small_is_refused_before_the_download(
    place: Place, repository: Path, mounted: Callable[[str], Path]
) -> None:
    (repository / "double/1/weights").write_bytes(os.urandom(2**21))
    publishing.publish(repository, place)
    with pytest.raises(MissingError, match="free; the version needs"):
        publishing.fetch(place, mounted("size=1m"))


def test_what_a_killed_fetch_took_out_of_the_folder_does_not_come_back(
    place: Place, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two models, the stage holds the first model of before: its old version folder and its engine."""
    target = tmp_path / "models"
    publishing.fetch(place, target)
    (target / "double/1/model.plan").write_text("of the version before")
    (repository / "double/1").rename(repository / "double/2")
    (repository / "whole/labels.txt").write_text("new")
    publishing.publish(repository, place)
    put = atomic.put

    def killed_at_the_second(new: Path, old: Path) -> None:
        if new.name == "whole":
            raise KeyboardInterrupt
        put(new, old)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "put", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            publishing.fetch(place, target)
    publishing.fetch(place, target)
    assert [path.name for path in (target / "double").iterdir() if path.is_dir()] == ["2"]
    assert [path.name for path in (target / "double/2").iterdir()] == ["model.py"]


def test_a_disk_that_fills_up_midway_is_named_and_not_the_store(
    place: Place, repository: Path, mounted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else writes there, too: there was enough when it began."""
    (repository / "double/1/weights").write_bytes(os.urandom(2**21))
    publishing.publish(repository, place)
    target = mounted("size=1m")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=2**30))
    with pytest.raises(MissingError, match=f"no space left on the disk that holds {target}"):
        publishing.fetch(place, target)


def test_sigterm_ends_downloads_at_the_next_piece_and_keeps_them(
    place: Place, repository: Path, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first process of a container, which has no default handler."""
    (repository / "double/1/weights").write_bytes(bytes(200))
    version = publishing.publish(repository, place).manifest.version
    before = signal.signal(signal.SIGTERM, lambda *_: None)

    def pieces(_shelf: publishing.Destination, _version: str, path: str, offset: int = 0) -> Iterator[bytes]:
        yield b"x"
        if not path.endswith("weights"):
            return
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(offset + 1, 200):
            time.sleep(0.02)
            yield b"x"

    monkeypatch.setattr(publishing.Destination, "chunks", pieces)
    try:
        assert project.run("fetch", str(place), tmp_path / "models")[0] == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    part = tmp_path / "models/.tritonkit-fetch" / version / "double/1/weights.part"
    assert 0 < part.stat().st_size < 200


def test_a_volume_without_locks_is_fetched_into_all_the_same(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    messages: list[str] = []
    monkeypatch.setattr(fcntl, "flock", none)
    assert publishing.fetch(place, tmp_path / "models", messages.append).downloaded == 4
    assert f"go on without a lock, as {tmp_path / 'models'} has none (No locks available)" in messages
