"""A search through a space by Optuna, asked and told: on disk, so that it can be gone on with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from lpt.config.command_line import ALL, LAYER
from lpt.errors import Problems, config_error
from lpt.sweep.job import FAILED, PRUNED, Job
from lpt.sweep.plan import Composer
from lpt.sweep.space import Range, Settings, Space

STUDY = "study.jsonl"
_SETTINGS = "settings"
_SEEDS = ("seed", "data.seed")
# A run is behind if it is not among the better three quarters of the runs at that evaluation. It is
# not judged before so many others have ended, nor by its first evaluation.
_KEPT_PERCENT, _STARTUP_TRIALS, _WARMUP_EVALUATIONS = 75.0, 5, 1


def check_search(space: Space) -> None:
    """Refuse a space that cannot be searched.

    Raises:
        ConfigError: With all that is wrong.
    """
    problems = Problems()
    for key in _SEEDS:
        if key in space.axes or key in space.ranges:
            problems.add(
                key,
                "several values in a search",
                "one: the best of several seeds is luck",
                f"search with one, then try the best settings with several: {key}=13,21,42",
            )
    for key, numbers in space.ranges.items():
        if not math.isfinite(numbers.high - numbers.low) or numbers.low > numbers.high:
            problems.add(key, f"{numbers.low} to {numbers.high}", "a rising interval")
        if numbers.log and numbers.low <= 0:
            problems.add(key, f"log from {numbers.low}", "more than 0")
    problems.raise_if_any()


class Search:
    """A study in the folder of a sweep.

    Args:
        composer: Of what to search in.
        folder: Of the sweep.
        prune: Whether runs that are clearly behind are ended early.

    Raises:
        ConfigError: The study in the folder is damaged.
    """

    def __init__(self, composer: Composer, folder: Path, *, prune: bool) -> None:
        self.distributions = _distributions(composer)
        self._judged: dict[str, int] = {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = _study(folder / STUDY)
        # After so many trials as there are, so that going on does not repeat what was drawn.
        self.study.sampler = optuna.samplers.TPESampler(
            seed=len(self.study.trials), constant_liar=True
        )
        self.study.pruner = (
            optuna.pruners.PercentilePruner(_KEPT_PERCENT, _STARTUP_TRIALS, _WARMUP_EVALUATIONS)
            if prune
            else optuna.pruners.NopPruner()
        )

    @property
    def open(self) -> dict[str, Settings]:
        """Trials that were asked for and not told of: name -> settings."""
        return {
            _name(trial.number): trial.user_attrs[_SETTINGS]
            for trial in self.study.get_trials(states=[TrialState.RUNNING])
            if _SETTINGS in trial.user_attrs
        }

    @property
    def names(self) -> list[str]:
        """Of all trials."""
        return [_name(trial.number) for trial in self.study.trials]

    def ask(self) -> tuple[str, Settings]:
        """A new trial."""
        trial = self.study.ask(self.distributions)
        settings = {key: _text(value) for key, value in trial.params.items()}
        trial.set_user_attr(_SETTINGS, settings)
        return _name(trial.number), settings

    def behind(self, name: str, scores: Sequence[float]) -> bool:
        """Whether a trial with these dev scores, evaluation by evaluation, is clearly behind."""
        if self._judged.get(name) == len(scores):  # nothing new
            return False
        self._judged[name] = len(scores)
        trial = self._report(name, scores)
        return trial is not None and bool(scores) and trial.should_prune()

    def _report(self, name: str, scores: Sequence[float]) -> Trial | None:
        """Add the scores that are not known yet; None if the trial has ended meanwhile."""
        frozen = self.study.trials[_number(name)]
        trial = Trial(self.study, frozen._trial_id)
        try:
            for evaluation in range(len(frozen.intermediate_values), len(scores)):
                trial.report(max(scores[: evaluation + 1]), evaluation)
        except optuna.exceptions.UpdateFinishedTrialError:
            return None
        return trial

    def tell(self, job: Job) -> None:
        """How the job of a trial has ended, if it has."""
        number, metrics = _number(job.name), job.metrics
        if metrics is not None:
            metric = metrics["selection"]["metric"]
            self._report(job.name, [entry[metric] for entry in metrics["dev_history"]])
            self.study.tell(number, metrics["selection"]["value"])
        elif job.state in (PRUNED, FAILED):
            state = TrialState.PRUNED if job.state == PRUNED else TrialState.FAIL
            self.study.tell(number, state=state)


def _study(file: Path) -> optuna.Study:
    try:
        study = optuna.create_study(
            study_name="lpt",
            storage=JournalStorage(JournalFileBackend(str(file))),
            load_if_exists=True,
            direction="maximize",
        )
        for trial in study.trials:
            _ = dict(trial.user_attrs.get(_SETTINGS, {}))
    except Exception as error:  # whatever Optuna makes of lines that are not its own
        given = f"cannot be read ({type(error).__name__}: {error})"
        hint = "start anew with overwrite=true, or take another sweep.dir"
        raise config_error(str(file), given, "the study of a search", hint) from error
    return study


def _name(number: int) -> str:
    return f"trial-{number:03d}"


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _distributions(composer: Composer) -> dict[str, BaseDistribution]:
    space, found = composer.space, dict[str, BaseDistribution]()
    for key, values in space.axes.items():
        if key == LAYER and values == (ALL,):
            layers = composer.common_layers()
            found[key] = IntDistribution(layers[0], layers[-1])
        else:
            found[key] = CategoricalDistribution(values)
    return found | {key: _numbers(numbers) for key, numbers in space.ranges.items()}


def _numbers(numbers: Range) -> BaseDistribution:
    if numbers.whole:
        assert numbers.step is not None
        step = 1 if numbers.log else int(numbers.step)
        return IntDistribution(int(numbers.low), int(numbers.high), log=numbers.log, step=step)
    return FloatDistribution(numbers.low, numbers.high, log=numbers.log, step=numbers.step)
