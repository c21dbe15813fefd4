"""Late prompt tuning: a trained prompt generator inside a frozen language model.

Liu et al., "Late Prompt Tuning: A Late Prompt Could Be Better Than Many Prompts", Findings of EMNLP
2022, arXiv 2210.11292.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lpt.config.schema import Config
    from lpt.methods.base import Method
    from lpt.predictor import Predictor
    from lpt.runs.adapter import load_adapter
    from lpt.runs.record import RunRecord
    from lpt.training.plan import Plan

__version__ = "0.1.0"
__all__ = ["Config", "Predictor", "Result", "__version__", "load_adapter", "run"]
_MODULES = {
    "Config": "lpt.config.schema",
    "Predictor": "lpt.predictor",
    "load_adapter": "lpt.runs.adapter",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used: torch takes seconds to import."""
    if name not in _MODULES:
        raise AttributeError(f"module 'lpt' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


@dataclass(frozen=True, repr=False)
class Result:
    """A finished run.

    Attributes:
        record: Scores, costs and configuration: the content of metrics.json.
    """

    record: RunRecord
    _trained: tuple[Plan, Method] | None

    def __repr__(self) -> str:
        kept = {"dev": self.record.dev, "test": self.record.test or {}}
        scores = (f"{part} {m} {value:.3f}" for part, of in kept.items() for m, value in of.items())
        return f"Result({self.record.run_dir}: {', '.join(scores)})"

    @cached_property
    def predictor(self) -> Predictor:
        """What was trained, as a function from rows to labels.

        Of a run that had finished before, adapter and backbone are loaded.
        """
        from lpt.predictor import Predictor

        if self._trained is None:
            return Predictor(self.record.run_dir)
        return Predictor.of_model(*self._trained)


def run(config: Config, *, train: Any = None, dev: Any = None, test: Any = None) -> Result:
    """Train a method and score it, without showing anything.

    As on the command line, the files of a run are written to `run_dir`; the frozen layers below the
    method stay in memory, for the predictor.

    Args:
        config: Configuration of the run; see `Config.compose`.
        train: Rows to train on, instead of the data that the configuration names: a list of dicts,
            a pandas DataFrame or a `datasets.Dataset`.
        dev: Rows that select the checkpoint; without, a part of train is held out.
        test: Rows to be scored at the end, with or without labels; without dev and test rows, a
            part of train is held out.

    Raises:
        ConfigError: Something about the input is wrong; nothing was written.
        RunError: The run failed; its checkpoints are complete.
        SystemExit: Ctrl-C or another signal stopped it; `resume` goes on from its checkpoint.
    """
    from lpt import experiment
    from lpt.data.rows import table_source
    from lpt.errors import config_error
    from lpt.training.silence import libraries_silenced

    sets = {"train": train, "dev": dev, "test": test}
    source = None if all(rows is None for rows in sets.values()) else table_source(sets)
    if config.dry_run:
        raise config_error("dry_run", "true, from Python", "false", "lpt-train dry_run=true")
    config = replace(config, cache=replace(config.cache, release_lower=False))
    trained: list[tuple[Plan, Method]] = []

    def keep(plan: Plan, model: Method) -> None:
        trained.append((plan, model))

    with libraries_silenced():
        record = experiment.run(config, source=source, quiet=True, use_trained=keep)
    assert record is not None
    return Result(record, trained[0] if trained else None)
