"""Finds a browser."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture
def chromium() -> str:
    """The browser's path; skips where there is none, but fails in CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        assert os.environ.get("CI") != "true", "CI must have Chromium: .ci/run installs it"
        pytest.skip("no Chromium on this machine; `apt-get install chromium` adds it")
    return found
