"""Old versions: listed, rolled back to, pruned; never the current one, never one that is being uploaded."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from s3fs import S3FileSystem  # type: ignore[import-untyped]
from s3store import Bucket
from support import Project

from tritonkit import publishing
from tritonkit.errors import CheckFailed, InputError, OutputError
from tritonkit.publishing import Destination, Place, version_history
from tritonkit.publishing.manifest import Manifest


@pytest.fixture
def place(repository: Path, tmp_path: Path) -> Place:
    """A folder with three versions, the last of them current."""
    place = publishing.parse((tmp_path / "published").as_uri())
    for number in range(3):
        (repository / "double/labels.txt").write_text(str(number))
        publishing.publish(repository, place)
        time.sleep(0.002)  # the time of a manifest has milliseconds
    return place


def names(place: Place) -> list[str]:
    """The versions, the newest first."""
    return [version.manifest.version for version in publishing.versions(Destination(place))]


def current(place: Place) -> str:
    """The current version."""
    return next(version.manifest.version for version in publishing.versions(Destination(place)) if version.current)


def test_rolling_back_goes_to_the_one_before_and_twice_comes_back(place: Place) -> None:
    third, second, first = names(place)
    assert publishing.roll_back(Destination(place))[0].version == second == current(place)
    assert publishing.roll_back(Destination(place))[0].version == third == current(place)
    assert publishing.roll_back(Destination(place), first[:6])[0].version == first == current(place)


def test_rolling_back_to_what_is_not_there_or_not_whole_is_refused(place: Place) -> None:
    third, second, _ = names(place)
    with pytest.raises(InputError, match="there is no version zzz"):
        publishing.roll_back(Destination(place), "zzz")
    Path(place.root, "versions", second, "double/1/model.py").unlink()
    with pytest.raises(CheckFailed, match="is not whole"):
        publishing.roll_back(Destination(place))
    assert current(place) == third


def test_nothing_to_roll_back_to(repository: Path, tmp_path: Path) -> None:
    place = publishing.parse(str(tmp_path / "published"))
    (tmp_path / "published").mkdir()
    with pytest.raises(OutputError, match="nothing is published"):
        publishing.roll_back(Destination(place))
    publishing.publish(repository, place)
    with pytest.raises(InputError, match="no version was current before"):
        publishing.roll_back(Destination(place))


def test_pruning_keeps_the_newest_and_the_current_even_if_it_is_the_oldest(place: Place) -> None:
    third, second, first = names(place)
    publishing.roll_back(Destination(place), first)
    assert publishing.prune(Destination(place), 2) == [second]
    assert names(place) == [third, first]
    assert publishing.prune(Destination(place), 1) == [third]
    assert publishing.prune(Destination(place), 1) == []
    assert [path.name for path in Path(place.root, "versions").iterdir()] == [first]
    with pytest.raises(InputError):
        publishing.prune(Destination(place), 0)


def test_pruning_removes_no_file_that_was_not_published(place: Place) -> None:
    third, second, first = names(place)
    theirs = Path(place.root, "versions", first, "double/2/model.py")
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    with pytest.raises(OutputError, match=f"not published with version {first}") as caught:
        publishing.prune(Destination(place), 1)
    assert caught.value.fix
    assert theirs.read_text() == "theirs"
    assert names(place) == [third, second, first]
    theirs.unlink()
    assert publishing.prune(Destination(place), 1) == [second, first]


def test_a_values_file_of_the_users_own_is_not_replaced(place: Place, project: Project, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("replicas: 3\n")
    third = current(place)
    code, _, error = project.run("rollback", str(place), "--values", values)
    assert code == 2
    assert f"--values {values} is a file that tritonkit did not write" in error
    assert values.read_text() == "replicas: 3\n"
    assert current(place) == third
    for _ in range(2):  # its own it does replace
        assert project.run("rollback", str(place), "--values", tmp_path / "version.yaml")[0] == 0


def test_an_upload_under_way_stays_and_one_given_up_goes(place: Place) -> None:
    half = Path(place.root, "versions", "0" * 16, "double/1/model.py")
    half.parent.mkdir(parents=True)
    half.write_text("half")
    stray = Path(place.root, ".incoming/1-1")
    stray.write_text("half")
    assert publishing.prune(Destination(place), 3) == []
    assert half.exists()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(half, (two_days_ago, two_days_ago))
    os.utime(stray, (two_days_ago, two_days_ago))
    assert publishing.prune(Destination(place), 3) == ["0" * 16]
    assert not half.exists()
    assert not stray.exists()


def test_a_version_that_becomes_current_while_it_is_pruned_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another publisher switches between the pruner's look at the pointer and its removal."""
    third, _, first = names(place)
    drop = Destination.drop_manifest

    def switched_just_before(destination: Destination, version: str) -> None:
        if version == first:
            destination.switch(first, third)
        drop(destination, version)

    monkeypatch.setattr(Destination, "drop_manifest", switched_just_before)
    publishing.prune(Destination(place), 1)
    assert current(place) == first
    assert Path(place.root, "versions", first, "double/1/model.py").is_file()


def test_the_commands_list_prune_and_name_the_version_for_helm(place: Place, project: Project, tmp_path: Path) -> None:
    third, second, first = names(place)
    code, output, _ = project.run("versions", str(place))
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()[1:]] == [third, second, first]
    assert output.splitlines()[1].rstrip().endswith("current")
    values = tmp_path / "values.yaml"
    code, output, _ = project.run("rollback", str(place), "--values", values, "--json")
    assert json.loads(output)["version"] == second
    named = yaml.safe_load(values.read_text())
    assert named["autoscaling"] == {"ensembles": ["whole"]}
    sub_path = named["models"]["pvc"]["subPath"]
    assert sub_path.endswith(f"versions/{second}")
    code, output, _ = project.run("versions", str(place), "--prune", "1", "--json")
    assert json.loads(output)["pruned"] == [third, first]
    assert [entry["version"] for entry in json.loads(output)["versions"]] == [second]


def test_pruning_keeps_what_a_rollback_goes_to_before_newer_versions(place: Place, repository: Path) -> None:
    _, second, first = names(place)
    publishing.roll_back(Destination(place), first)
    publishing.roll_back(Destination(place), second)
    publishing.prune(Destination(place), 2)
    assert publishing.roll_back(Destination(place))[0].version == first


def test_what_a_rollback_would_go_to_was_pruned(place: Place) -> None:
    publishing.prune(Destination(place), 1)
    with pytest.raises(InputError, match="which was current before, was pruned"):
        publishing.roll_back(Destination(place))


def test_two_pruners_at_once_both_succeed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    third, second, first = names(place)
    remove = version_history._remove

    def after_another(destination: Destination, manifest: Manifest) -> bool:
        remove(destination, manifest)
        return remove(destination, manifest)

    monkeypatch.setattr(version_history, "_remove", after_another)
    assert publishing.prune(Destination(place), 1) == [second, first]
    assert names(place) == [third]


def test_pruning_reads_every_page_of_uploads_and_needs_no_right_to_list(
    bucket: Bucket, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = publishing.parse("s3://models/prod", bucket.endpoint)
    publishing.publish(repository, place)
    call, markers = S3FileSystem.call_s3, []

    def answer(fs: S3FileSystem, method: str, *arguments: Any, **words: Any) -> Any:
        if method != "list_multipart_uploads":
            return call(fs, method, *arguments, **words)
        markers.append(words.get("KeyMarker"))
        if len(markers) > 1:
            raise PermissionError("Access Denied")
        return {"Uploads": [], "IsTruncated": True, "NextKeyMarker": "k", "NextUploadIdMarker": "u"}

    monkeypatch.setattr(S3FileSystem, "call_s3", answer)
    assert publishing.prune(Destination(place), 1) == []
    assert markers == [None, "k"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--grace", "5"], "--grace goes with --prune"),
        (["--prune", "1", "--grace", "nan"], "no time in minutes"),
        (["--prune", "1", "--grace=-1"], "no time in minutes"),
        (["--prune", "1", "--grace", "1e300"], "no time in minutes"),
    ],
)
def test_a_grace_that_means_nothing_removes_nothing(
    place: Place, project: Project, more: list[str], words: str
) -> None:
    code, _, error = project.run("versions", str(place), *more)
    assert (code, words in error) == (2, True), error
    assert len(names(place)) == 3


@pytest.mark.parametrize("verb", ["publish", "rollback"])
def test_an_unwritable_values_file_is_refused_before_any_change(
    place: Place, repository: Path, project: Project, tmp_path: Path, verb: str
) -> None:
    before = current(place)
    (repository / "double/labels.txt").write_text("new")
    words = [repository, str(place)] if verb == "publish" else [str(place)]
    (tmp_path / "file").touch()
    for values in (tmp_path, tmp_path / "file/values.yaml"):
        code, output, _ = project.run(verb, *words, "--values", values)
        assert (code, output) == (2, "")
    assert current(place) == before
    assert len(names(place)) == 3


def test_removing_takes_time_on_a_store_so_it_says_what_it_does(place: Place, project: Project) -> None:
    _, second, _ = names(place)
    assert f"prune: remove {second}, 5 files" in project.run("versions", str(place), "--prune", "1", "--json")[2]
