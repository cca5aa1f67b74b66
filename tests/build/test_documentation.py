"""The documentation's site: every page can be reached, every link leads somewhere, and a broken one ends `make docs`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

BUILD = Path(sys.executable).with_name("sphinx-build")


def build(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [str(BUILD), "-q", "-W", "--keep-going", "-b", "html", str(source), str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def links(page: Path) -> set[Path]:
    targets = re.findall(r"^- \[[^\]]+\]\(([^)#]+\.md)\)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {(page.parent / target).resolve() for target in targets}


def test_every_page_is_on_the_index_or_among_the_decisions(root: Path) -> None:
    docs = root / "docs"
    reached = links(docs / "index.md") | links(docs / "decisions/index.md") | {docs / "index.md"}
    assert {path.resolve() for path in docs.rglob("*.md")} == reached
    assert len(links(docs / "decisions/index.md")) > 20


def test_the_site_is_built_with_every_link_and_heading(root: Path, tmp_path: Path) -> None:
    done = build(root / "docs", tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="measurements/gpu.html"' in page
    assert "On a cluster" in page


def test_a_link_that_leads_nowhere_ends_the_build(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "docs/conf.py", tmp_path)
    (tmp_path / "index.md").write_text("# Site\n\n## Pages\n- [Page](page.md)\n", encoding="utf-8")
    (tmp_path / "page.md").write_text("# Page\n\n[file](../Makefile), [gone](gone.md)\n", encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "page.md:3" in done.stderr
    assert "gone" in done.stderr
    (tmp_path / "page.md").write_text("# Page\n\n[file](../Makefile), [part](index.md#nowhere)\n", encoding="utf-8")
    assert "nowhere" in build(tmp_path, tmp_path / "site").stderr
    (tmp_path / "page.md").write_text("# Page\n\n[file](../Makefile), [part](index.md#pages)\n", encoding="utf-8")
    assert build(tmp_path, tmp_path / "site").returncode == 0
