"""What a run depends on besides its configuration: versions, device, revision of the source."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from lpt.errors import Problems, first_line
from lpt.files import JsonModel

if TYPE_CHECKING:
    import torch

DTYPES = "float32", "bfloat16", "float16"
REVISION = "LPT_REVISION"
"""Environment variable of jobs and ranks: `source_revision` when their source was imported."""
_PACKAGE_DIR = Path(__file__).resolve().parents[1]
_PACKAGES = ("lpt", "torch", "lightning", "transformers", "datasets", "torchmetrics", "hydra-core")


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
    """The environment with this `strategy.accelerator`, taken before anything can change."""
    import torch

    versions = {}
    for library in _PACKAGES:
        with suppress(PackageNotFoundError):  # e.g. lpt itself, in a clone that is not installed
            versions[library] = version(library)
    gpu = uses_gpu(accelerator)
    revision = os.environ[REVISION] if REVISION in os.environ else source_revision()
    return Environment(
        python=platform.python_version(),
        versions=versions,
        device=torch.cuda.get_device_name() if gpu else platform.processor() or platform.machine(),
        git_revision=revision.rstrip("+") or None,
        git_dirty=revision.endswith("+") if revision else None,
    )


def source_revision() -> str:
    """Commit of the clone that lpt is imported from, with a `+` if tracked files are changed.

    Empty for an installed package.
    """
    revision = (_git("rev-parse", "HEAD") if _git("ls-files", "__init__.py") else None) or ""
    changes = _git("status", "--porcelain", "--untracked-files=no") if revision else None
    return f"{revision}+" if changes else revision


def uses_gpu(accelerator: str) -> bool:
    """Whether a run with this `strategy.accelerator` computes on a GPU."""
    import torch

    return accelerator != "cpu" and torch.cuda.device_count() > 0


def _git(*arguments: str) -> str | None:
    """Output of git in the folder of the package; None if there is no git, or no repository."""
    command = ["git", "-C", str(_PACKAGE_DIR), *arguments]
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.check_output(  # noqa: S603
            command, stderr=subprocess.DEVNULL, text=True
        ).strip()
    return None


def check_device(device: str, dtype: str | None = None) -> torch.device:
    """The device of that name.

    Raises:
        ConfigError: There is no such device, or the backbone cannot be run in that type.
    """
    import torch

    problems = Problems()
    if dtype not in (None, *DTYPES):
        problems.add("dtype", str(dtype), ", ".join(DTYPES))
    try:
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError) as error:  # of torch without CUDA: AssertionError
        kind = torch.accelerator.current_accelerator()
        others = [f"{kind}:{number}" for number in range(torch.accelerator.device_count())]
        is_there = {device, f"{device}:0"} & {"cpu", *others}
        fault = first_line(error) if is_there else "no such device"
        problems.add("device", f"{device}: {fault}", ", ".join(["cpu", *others]))
    problems.raise_if_any()
    return torch.device(device)
