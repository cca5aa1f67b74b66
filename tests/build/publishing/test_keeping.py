"""Old versions: listed, rolled back to, pruned; never the current one, never one that is being uploaded."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import yaml
from support import Project

from tritonkit import publishing
from tritonkit.errors import CheckFailed, InputError, OutputError
from tritonkit.publishing import Place, Shelf


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
    return [one.manifest.version for one in publishing.versions(Shelf(place))]


def current(place: Place) -> str:
    """The current one."""
    return next(one.manifest.version for one in publishing.versions(Shelf(place)) if one.current)


def test_rolling_back_goes_to_the_one_before_and_twice_comes_back(place: Place) -> None:
    third, second, first = names(place)
    assert publishing.roll_back(Shelf(place))[0].version == second == current(place)
    assert publishing.roll_back(Shelf(place))[0].version == third == current(place)
    assert publishing.roll_back(Shelf(place), first[:6])[0].version == first == current(place)


def test_rolling_back_to_what_is_not_there_or_not_whole_is_refused(place: Place) -> None:
    third, second, _ = names(place)
    with pytest.raises(InputError, match="there is no version zzz"):
        publishing.roll_back(Shelf(place), "zzz")
    Path(place.root, "versions", second, "double/1/model.py").unlink()
    with pytest.raises(CheckFailed, match="is not whole"):
        publishing.roll_back(Shelf(place))
    assert current(place) == third


def test_nothing_to_roll_back_to(repository: Path, tmp_path: Path) -> None:
    place = publishing.parse(str(tmp_path / "published"))
    (tmp_path / "published").mkdir()
    with pytest.raises(OutputError, match="nothing is published"):
        publishing.roll_back(Shelf(place))
    publishing.publish(repository, place)
    with pytest.raises(InputError, match="no version was current before"):
        publishing.roll_back(Shelf(place))


def test_pruning_keeps_the_newest_and_the_current_even_if_it_is_the_oldest(place: Place) -> None:
    third, second, first = names(place)
    publishing.roll_back(Shelf(place), first)
    assert publishing.prune(Shelf(place), 2) == [second]
    assert names(place) == [third, first]
    assert publishing.prune(Shelf(place), 1) == [third]
    assert publishing.prune(Shelf(place), 1) == []
    assert [path.name for path in Path(place.root, "versions").iterdir()] == [first]
    with pytest.raises(InputError):
        publishing.prune(Shelf(place), 0)


def test_an_upload_under_way_stays_and_one_given_up_goes(place: Place) -> None:
    half = Path(place.root, "versions", "0" * 16, "double/1/model.py")
    half.parent.mkdir(parents=True)
    half.write_text("half")
    stray = Path(place.root, ".incoming/1-1")
    stray.write_text("half")
    assert publishing.prune(Shelf(place), 3) == []
    assert half.exists()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(half, (two_days_ago, two_days_ago))
    os.utime(stray, (two_days_ago, two_days_ago))
    assert publishing.prune(Shelf(place), 3) == ["0" * 16]
    assert not half.exists()
    assert not stray.exists()


def test_a_version_that_becomes_current_while_it_is_pruned_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another publisher switches between the pruner's look at the pointer and its removal."""
    third, _, first = names(place)
    drop = Shelf.drop_manifest

    def switched_just_before(shelf: Shelf, version: str) -> None:
        if version == first:
            shelf.switch(first, third)
        drop(shelf, version)

    monkeypatch.setattr(Shelf, "drop_manifest", switched_just_before)
    publishing.prune(Shelf(place), 1)
    assert current(place) == first
    assert Path(place.root, "versions", first, "double/1/model.py").is_file()


def test_the_commands_list_prune_and_name_the_version_for_helm(place: Place, project: Project, tmp_path: Path) -> None:
    third, second, first = names(place)
    code, said, _ = project.run("versions", str(place))
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()[1:]] == [third, second, first]
    assert said.splitlines()[1].rstrip().endswith("current")
    values = tmp_path / "values.yaml"
    code, said, _ = project.run("rollback", str(place), "--values", values, "--json")
    assert json.loads(said)["version"] == second
    named = yaml.safe_load(values.read_text())
    assert named["autoscaling"] == {"ensembles": ["whole"]}
    sub_path = named["models"]["pvc"]["subPath"]
    assert sub_path.endswith(f"versions/{second}")
    code, said, _ = project.run("versions", str(place), "--prune", "1", "--json")
    assert json.loads(said)["pruned"] == [third, first]
    assert [one["version"] for one in json.loads(said)["versions"]] == [second]
