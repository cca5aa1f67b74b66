"""Links in and around a repository: a link stays a link, and a target that goes stale is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support import Project
from weights import SIGNATURE, write_model

from tritonkit import atomic


def write(project: Project, **changes: Any) -> None:
    write_model(project.directory / "net/model.onnx")
    project.write(source={"onnx": "net/model.onnx"}, **SIGNATURE, **changes)


def test_a_repository_that_is_a_link_stays_one_and_its_target_is_written(project: Project) -> None:
    target = project.directory / "real"
    target.mkdir()
    (target / "note").write_text("mine")
    project.repository.symlink_to("real")
    write(project)
    code, _, error = project.build()
    assert code == 0, error
    assert project.repository.readlink() == Path("real")
    assert {path.name for path in target.iterdir()} == {"net", "note"}
    assert not list(project.directory.glob(".tritonkit-*"))


def test_a_repository_that_is_a_link_to_nothing_is_refused_before_any_work(project: Project) -> None:
    project.repository.symlink_to("gone")
    write(project)
    code, _, error = project.build()
    assert code == 2
    assert "model_repository is a link to nothing (gone)" in error
    assert not project.artifacts()
    (project.directory / "gone").mkdir()  # the fix
    assert project.build()[0] == 0


def test_links_in_a_models_folder_are_replaced_only_when_that_is_asked_for(project: Project) -> None:
    elsewhere = project.directory / "elsewhere"
    write(project)
    assert project.build()[0] == 0
    (project.repository / "net").rename(elsewhere)
    for place, points_to in (("net", "../elsewhere"), ("net/1", "../../elsewhere/1")):
        link = project.repository / place
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(points_to)
        write(project, max_batch_size=4 if place == "net" else 2)
        before = (elsewhere / "config.pbtxt").read_bytes()
        code, _, error = project.build()
        assert code == 2
        assert f"model_repository/{place} is a link ({points_to})" in error
        code, _, error = project.build("--overwrite")  # the fix
        assert code == 0, error
        assert not link.is_symlink()
        assert (elsewhere / "config.pbtxt").read_bytes() == before
        for path in sorted((project.repository / "net").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (project.repository / "net").rmdir()


def test_links_to_other_models_stay_links(project: Project) -> None:
    (project.directory / "other/1").mkdir(parents=True)
    project.repository.mkdir()
    (project.repository / "other").symlink_to("../other")
    write(project)
    assert project.build()[0] == 0
    assert (project.repository / "other").readlink() == Path("../other")


def test_a_file_that_is_a_link_is_written_where_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").write_bytes(b"old")
    atomic.write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_publish_names_linked_files_and_fetch_replaces_no_link(project: Project, tmp_path: Path) -> None:
    write(project)
    assert project.build()[0] == 0
    (tmp_path / "secret").write_text("s")
    (project.repository / "net/1/notes.txt").symlink_to(tmp_path / "secret")
    (project.repository / "net/inside.txt").symlink_to("config.pbtxt")
    for more in (("--dry-run",), ()):
        code, out, error = project.run("publish", project.repository, tmp_path / "store", "--json", *more)
        assert code == 0, error
        (note,) = json.loads(out)["notes"]
        assert note.endswith(f"published too: net/1/notes.txt -> {tmp_path / 'secret'}")
    (tmp_path / "fetched").mkdir()
    (tmp_path / "fetched/net").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    code, _, error = project.run("fetch", tmp_path / "store", tmp_path / "fetched")
    assert code == 2
    assert f"fetched/net is a link ({tmp_path / 'elsewhere'})" in error
    assert not any((tmp_path / "elsewhere").iterdir())
    (tmp_path / "fetched/net").unlink()  # the fix
    assert project.run("fetch", tmp_path / "store", tmp_path / "fetched")[0] == 0
