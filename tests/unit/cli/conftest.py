"""Data for the command lines of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

SPLITS = ("train", "dev", "test")


@pytest.fixture
def root(tmp_path: Path, toy_data: Path) -> Path:
    """A data.root with the folders of MR and of a regression task."""
    root = tmp_path / "root"
    (root / "mr").mkdir(parents=True)
    (root / "STS-B").mkdir()
    rows = ["index\tsentence1\tsentence2\tscore"]
    rows += [f"{i}\tthe film is good\tthe film is bad\t{i % 6}.000" for i in range(24)]
    for split in SPLITS:
        (root / "mr" / f"{split}.tsv").write_text((toy_data / f"{split}.tsv").read_text())
        (root / "STS-B" / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    return root
