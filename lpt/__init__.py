"""Late prompt tuning: a trained prompt generator inside a frozen language model.

Liu et al., "Late Prompt Tuning: A Late Prompt Could Be Better Than Many Prompts", Findings of EMNLP
2022, arXiv 2210.11292.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lpt.config.schema import Config
    from lpt.experiment import run
    from lpt.predictor import Predictor
    from lpt.runs.adapter import load_adapter

__version__ = "0.1.0"
__all__ = ["Config", "Predictor", "__version__", "load_adapter", "run"]
_MODULES = {
    "Config": "lpt.config.schema",
    "Predictor": "lpt.predictor",
    "load_adapter": "lpt.runs.adapter",
    "run": "lpt.experiment",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used: torch takes seconds to import."""
    if name not in _MODULES:
        raise AttributeError(f"module 'lpt' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
