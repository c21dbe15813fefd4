"""Where that is kept which can be made again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal


def cache_dir(kind: Literal["hidden", "tokens", "gguf"]) -> Path:
    """Folder for one kind of it, in $LPT_CACHE or else in lpt of the user's cache folder.

    Args:
        kind: Hidden states, tokens of larger sets, or checkpoints converted from GGUF.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lpt"
    return Path(os.environ.get("LPT_CACHE", default)) / kind
