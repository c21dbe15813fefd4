"""A plugin of Lightning that adds callbacks to every trainer of this process."""

from __future__ import annotations

from pathlib import Path

from lightning import Callback

CALLBACKS: list[Callback] = []


def callbacks() -> list[Callback]:
    """What the entry point names."""
    return CALLBACKS


def install(folder: Path) -> Path:
    """Write the metadata of an installed package into a folder that is to be on `sys.path`."""
    metadata = folder / "tests_plugin-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Name: tests-plugin\nVersion: 1.0\n")
    entry_point = f"tests = {callbacks.__module__}:{callbacks.__name__}"
    (metadata / "entry_points.txt").write_text(
        f"[lightning.pytorch.callbacks_factory]\n{entry_point}\n"
    )
    return folder
