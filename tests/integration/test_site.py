"""The docs as a site: every page is in it, no link is broken, every key is in the reference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lpt.config.reference import all_keys
from tests.support.configs import ROOT

pytest.importorskip("mkdocs", reason="needs the extra docs")


def test_the_site_is_built_without_warnings(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "mkdocs", "build", "--strict")
    built = subprocess.run(
        [*command, "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {file.parent.name for file in (tmp_path / "site").glob("*/index.html")}
    assert pages >= {file.stem for file in (ROOT / "docs").glob("*.md")}
    configuration = (tmp_path / "site" / "configuration" / "index.html").read_text()
    assert all(f"<code>{key.name}</code>" in configuration for key in all_keys())
    reference = (tmp_path / "site" / "reference" / "index.html").read_text()
    assert "without showing anything" in reference  # the docstring of lpt.run
