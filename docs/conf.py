"""How Sphinx makes the documentation's site of these pages: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

project = "tritonkit"
author = "the tritonkit authors"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["conf.py"]
myst_heading_anchors = 4  # as code hosts make them, so that links to headings work there and here
html_theme = "furo"
html_title = "tritonkit"
html_copy_source = False
html_show_sphinx = False


LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s:]+)(#[^)]*)?\)")


def setup(app: Any) -> None:
    """Fit pages that a code host shows to a site of their own."""
    app.connect("source-read", _unlink_files)
    app.connect("source-read", _add_navigation)


def _unlink_files(app: Any, name: str, source: list[str]) -> None:
    """Leave only the text of links to files of the repository that are no pages."""
    place = Path(app.srcdir)

    def shown(link: re.Match[str]) -> str:
        target = (place / name).parent.joinpath(link[2]).resolve()
        return link[0] if target.suffix == ".md" and target.is_relative_to(place.resolve()) else link[1]

    source[0] = LINK.sub(shown, source[0])


def _add_navigation(_app: Any, name: str, source: list[str]) -> None:
    """Append a hidden table of contents for each heading of an index page, with the pages that it links to."""
    if not name.endswith("index"):
        return
    for section in re.split(r"^#+ ", source[0], flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        pages = re.findall(r"^- \[[^\]]+\]\(([^):#]+)\.md\)", text, flags=re.MULTILINE)
        if pages:
            caption = f":caption: {title}\n" if name == "index" else ""
            source[0] += f"\n```{{toctree}}\n:hidden:\n{caption}\n" + "\n".join(pages) + "\n```\n"
