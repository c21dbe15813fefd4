"""What the site has besides the pages in docs/: README as home, and the configuration reference."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

from lpt.config.command_line import config_groups
from lpt.config.reference import all_keys
from lpt.config.schema import CONF_DIR

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, content in {"index.md": readme, "configuration.md": configuration_page()}.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make links to files of the repository those of the site, or just names."""
    folder = "" if page.file.src_uri == "index.md" else "docs"
    return _LINK.sub(lambda link: _link(folder, *link.groups()), markdown)


def _link(folder: str, text: str, target: str, anchor: str | None) -> str:
    anchor = anchor or ""
    if not target or "://" in target:
        return f"[{text}]({target}{anchor})"
    path = os.path.normpath(PurePosixPath(folder, target))
    if path == "README.md":
        return f"[{text}](index.md{anchor})"
    if path.startswith("docs/"):
        return f"[{text}]({path.removeprefix('docs/')}{anchor})"
    return f"`{path}`"


def configuration_page() -> str:
    """The configuration reference: groups with their choices, keys with their meanings."""
    groups = config_groups(CONF_DIR)
    lines = [
        "# Configuration\n",
        "Settings of `lpt-train` and `lpt-sweep` (`key=value`, `group=choice`) and of",
        "`Config.compose`; `lpt-train --help` has the same with the values of a command line.",
        "A default that is not given comes from `conf/` or has to be set. *null* is none.",
    ]
    section = None
    for key in all_keys():
        if key.group != section:
            section = key.group
            lines.append(f"\n## {section or 'Run'}\n")
            if section in groups:
                choices = ", ".join(f"`{choice}`" for choice in groups[section])
                lines.append(f"Choices of `{section}=`: {choices}\n")
            lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        limits = f" Allowed: {key.limits}." if key.limits else ""
        default = f"`{key.default}`" if key.default else ""
        meaning = re.sub(r"<(\w+)>", r"`<\1>`", key.meaning) + limits
        lines.append(f"| `{key.name}` | `{key.type_name}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"
