"""What a run depends on besides its configuration: versions, device, revision of the source."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lpt.files import JsonModel

_PACKAGE_DIR = Path(__file__).resolve().parents[1]
_LIBRARIES = (
    *("lpt", "torch", "lightning", "transformers", "datasets", "torchmetrics", "hydra-core"),
)


class Environment(JsonModel):
    """Versions, device and git revision at the start of a run."""

    python: str
    versions: dict[str, str]
    """Version of each library whose metadata is installed."""
    device: str
    """Name of the GPU, or else of the processor."""
    git_revision: str | None
    """Commit of the clone that lpt was imported from; None for an installed package."""
    git_dirty: bool | None
    """Whether tracked files of that clone had been changed."""


def current_environment(accelerator: str) -> Environment:
    """The environment of this process; a run takes it at its start, before anything can change.

    Args:
        accelerator: As in `strategy.accelerator`: cpu, gpu, or auto.
    """
    import torch

    versions = {}
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):  # e.g. lpt itself, in a clone that is not installed
            versions[library] = version(library)
    gpu = uses_gpu(accelerator)
    revision = _git("rev-parse", "HEAD") if _git("ls-files", "__init__.py") else None
    changes = _git("status", "--porcelain", "--untracked-files=no") if revision else None
    return Environment(
        python=platform.python_version(),
        versions=versions,
        device=torch.cuda.get_device_name() if gpu else platform.processor() or platform.machine(),
        git_revision=revision,
        git_dirty=bool(changes) if revision else None,
    )


def uses_gpu(accelerator: str) -> bool:
    """Whether a run with this `strategy.accelerator` computes on a GPU."""
    import torch

    return accelerator != "cpu" and torch.cuda.device_count() > 0


def _git(*arguments: str) -> str | None:
    """Output of git in the folder of the package; None if there is no git, or no repository."""
    command = ["git", "-C", str(_PACKAGE_DIR), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
