"""Where the material lies that only development machines have; tests without it are skipped."""

from __future__ import annotations

import os
from pathlib import Path

SHARED = Path(os.environ.get("LPT_SHARED", Path(__file__).parents[3] / "shared"))
REFERENCE_DIR = Path(os.environ.get("LPT_REFERENCE_DIR", SHARED / "reference"))
DATA_DIR = SHARED / "data"
MINILM = SHARED / "models" / "minilm-mlm"
