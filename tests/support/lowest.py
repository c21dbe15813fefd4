"""The lowest versions that pyproject.toml allows, as pip constraints: see `make test-lowest`."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ("test", "dev")  # not imported by lpt


def lowest() -> list[str]:
    """`package==version` for each dependency, and each extra but those of development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    groups = [project["dependencies"], *(extras[name] for name in extras if name not in TOOLS)]
    bounds = [re.match(r"([\w-]+)>=([\d.]+)", text) for group in groups for text in group]
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


if __name__ == "__main__":
    sys.stdout.write("\n".join(lowest()) + "\n")
