"""What tritonkit did not write stays: files, folders, labels and versions in the directory of a model that it builds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from onnxmodels import write_linear, write_recipe
from support import Project


def write(project: Project, factor: float = 1, *more: str) -> None:
    write_linear(project.directory / "net.onnx", factor)
    write_recipe(project.directory / "net.yaml", project.directory / "net.onnx", *more, name="net")


def build(project: Project, *arguments: str) -> str:
    status, out, error = project.build(*arguments)
    assert status == 0, error
    return out


def test_what_somebody_put_into_a_models_directory_stays_and_is_named(project: Project) -> None:
    write(project)
    build(project)
    model = project.repository / "net"
    theirs = {"2/model.onnx": b"theirs", "2/model.onnx.data": b"w", "NOTES.md": b"n", "1/vocabulary.txt": b"v",
              "warmup/mine": b"m", "configs/other.pbtxt": b"c"}  # fmt: skip
    for path, content in theirs.items():
        (model / path).parent.mkdir(exist_ok=True)
        (model / path).write_bytes(content)
    (model / "3").mkdir()
    (model / "link").symlink_to("NOTES.md")
    for more in ((), ("max_batch_size: 4",)):  # unchanged, and with another configuration
        write(project, 1, *more)
        printed = build(project)
        assert {path: (model / path).read_bytes() for path in theirs} == theirs
        assert (model / "3").is_dir()
        assert (model / "link").is_symlink()
        assert all(f"net/{path}" in printed for path in (*theirs, "3", "link"))
        assert "versions 1, 2, 3 are there; served: 3, the highest, and not 1" in printed
    write(project, 1, "version: 1")  # what it says to do
    printed = build(project)
    assert "served: 1\n" in printed
    assert "version_policy" in (model / "config.pbtxt").read_text(encoding="utf-8")


def test_what_an_earlier_build_wrote_goes_when_it_is_no_longer_written(project: Project) -> None:
    (project.directory / "classes.txt").write_text("a\nb\nc\n", encoding="utf-8")
    write(project)
    recipe = project.directory / "net.yaml"
    plain = recipe.read_text(encoding="utf-8")
    recipe.write_text(plain.replace("dims: [3]", "dims: [3], labels: classes.txt"), encoding="utf-8")
    build(project)
    assert "net/labels.txt" in project.files()
    recipe.write_text(plain, encoding="utf-8")
    assert "left as it is" not in build(project)
    assert "net/labels.txt" not in project.files()


@pytest.mark.parametrize("path", ["labels.txt", "1/model.onnx"])
def test_what_was_changed_by_hand_is_not_replaced_until_that_is_asked_for(project: Project, path: str) -> None:
    (project.directory / "classes.txt").write_text("a\nb\nc\n", encoding="utf-8")
    write(project)
    recipe = project.directory / "net.yaml"
    text = recipe.read_text(encoding="utf-8").replace("dims: [3]", "dims: [3], labels: classes.txt")
    recipe.write_text(text, encoding="utf-8")
    build(project)
    edited = project.repository / "net" / path
    ours = edited.read_bytes()
    theirs = bytes([*ours[:-1], ours[-1] ^ 1]) if path.endswith(".onnx") else b"cat\ndog\nfish\n"  # a graph of one size
    edited.unlink()  # as an editor does: the file of the store has the same inode
    edited.write_bytes(theirs)
    recipe.write_text(f"{text}max_batch_size: 4\n", encoding="utf-8")
    before = project.files()
    status, _, error = project.build()
    assert status == 2
    assert f"net/{path}: not as tritonkit wrote it, and would be lost" in error
    assert "--overwrite" in error
    assert project.files() == before
    build(project, "--overwrite")
    assert edited.read_bytes() == ours


def test_a_model_of_the_users_own_under_a_recipes_name_is_not_replaced(project: Project) -> None:
    mine = project.repository / "net/1/model.onnx"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")  # Triton completes the configuration by itself
    write(project)
    status, _, error = project.build()
    assert status == 2
    assert "net/1/model.onnx: not as tritonkit wrote it" in error
    assert project.files() == {"net/1/model.onnx": b"mine"}
    mine.rename(project.directory / "mine.onnx")  # the fix
    build(project)


def test_a_passport_lists_what_was_written_with_it(project: Project) -> None:
    from tritonkit.dependencies import sha256

    write(project)
    build(project)
    model = project.repository / "net"
    listed = json.loads((model / "passport.json").read_text(encoding="utf-8"))["files"]
    assert listed == {path: sha256(model / path) for path in ("1/model.onnx", "config.pbtxt", "warmup/x")}


def two(project: Project, traffic: str = "traffic: {1: 90, 2: 10}", classes: int = 3) -> tuple[Path, Path]:
    write_linear(project.directory / "old.onnx", 1)
    write_linear(project.directory / "new.onnx", 2, classes)
    return (
        write_recipe(project.directory / "old.yaml", project.directory / "old.onnx"),
        write_recipe(project.directory / "new.yaml", project.directory / "new.onnx", "version: 2", traffic, classes=classes),
    )  # fmt: skip


def test_versions_built_together_or_in_turn_give_the_same_repository(project: Project) -> None:
    old, new = two(project)
    assert project.run("build", old, new, "--repository", project.repository)[0] == 0
    together = project.files()
    assert {"classifier/1/passport.json", "classifier/passport.json"} <= set(together)
    versions = {json.loads(together[f"classifier/{where}passport.json"])["version"] for where in ("1/", "")}
    assert versions == {1, 2}
    for recipes in ((old, new), (new,)):
        code, out, _ = project.run("build", *recipes, "--repository", project.repository)
        assert code == 0
        assert "up to date" in out, "nothing is written twice"
        assert project.files() == together
    for recipe in (old, new):
        assert project.run("build", recipe, "--repository", project.directory / "other")[0] == 0
    other = {path: content for path, content in project.files().items() if not path.endswith("passport.json")}
    assert other == {path: (project.directory / "other" / path).read_bytes() for path in other}


@pytest.mark.parametrize(
    ("traffic", "classes", "message"),
    [
        ("traffic: {1: 1, 2: 1, 3: 1}", 3, "traffic names version 3, and"),
        ("traffic: {1: 1, 2: 1}", 4, "beside its version 1: output scores is FP32 [4], there FP32 [3]"),
        ("traffic: {2: 0}", 3, "traffic gives no version a share"),
        ("traffic: {1: -1}", 3, "new.yaml:6: traffic"),
    ],
)
def test_traffic_that_cannot_be_served_is_refused_and_nothing_is_written(
    project: Project, traffic: str, classes: int, message: str
) -> None:
    old, new = two(project, traffic, classes)
    assert project.run("build", old, "--repository", project.repository)[0] == 0
    before = project.files()
    for recipes in ((new,), (old, new)):
        code, _, error = project.run("build", *recipes, "--repository", project.repository)
        assert code == 2
        assert message in error, error
        assert "fix:" in error
    assert project.files() == before


def test_a_node_is_checked_for_every_served_version_and_no_other(project: Project) -> None:
    from tritonkit.engines import check
    from tritonkit.engines.node import Node

    old, new = two(project)
    assert project.run("build", old, new, "--repository", project.repository)[0] == 0
    passport = project.repository / "classifier/1/passport.json"
    content = json.loads(passport.read_text(encoding="utf-8"))
    passport.write_text(json.dumps(content | {"cpu_features": ["avx512_vnni"]}), encoding="utf-8")
    here = Node((), None, None)
    problems = check.check_model(project.repository / "classifier", here).problems
    assert [problem.kind for problem in problems] == ["cpu"]
    new.write_text(new.read_text(encoding="utf-8").replace("1: 90, 2: 10", "2: 1"), encoding="utf-8")
    assert project.run("build", new, "--repository", project.repository)[0] == 0
    assert not check.check_model(project.repository / "classifier", here).problems


def test_several_versions_for_tensorrt_are_refused(project: Project) -> None:
    code, _, error = project.run("build", *two(project), "--target", "tensorrt", "--repository", project.repository)
    assert code == 2
    assert "engines are built on a node for one of them" in error
    assert not project.files()


def test_two_recipes_of_one_version_are_refused(project: Project) -> None:
    old, new = two(project, "max_batch_size: 4")
    new.write_text(new.read_text(encoding="utf-8").replace("version: 2", "version: 1"), encoding="utf-8")
    code, _, error = project.run("build", old, new, "--repository", project.repository)
    assert code == 2
    assert "two recipes have the name 'classifier'" in error
