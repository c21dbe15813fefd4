"""A search by Optuna, in memory: the folders of its jobs are the record that it is resumed from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from threading import Lock
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial, TrialState

from lpt.config.command_line import ALL, LAYER
from lpt.runs.job_record import JobRecord, JobState, NumberRange
from lpt.runs.record import RunRecord
from lpt.sweep.jobs import JobResult
from lpt.sweep.plan import Composer
from lpt.sweep.space import Settings

# A run is pruned if its best dev score so far is in the worst quarter at that evaluation; not
# before 5 trials have finished, nor at its first evaluation.
_KEPT_PERCENT, _STARTUP_TRIALS, _WARMUP_EVALUATIONS = 75.0, 5, 1
_FAILURES = {JobState.FAILED: TrialState.FAIL, JobState.PRUNED: TrialState.PRUNED}


class Search:
    """Samples the settings of trials and decides which ones to prune.

    Args:
        composer: Composer of the space.
        jobs: Trials that were started before, in order.
        prune: Whether to end runs early that are clearly behind.

    Attributes:
        open: Name -> settings of the trials that have not ended.
    """

    def __init__(self, composer: Composer, jobs: Sequence[JobResult], *, prune: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        percentile = optuna.pruners.PercentilePruner(
            _KEPT_PERCENT, _STARTUP_TRIALS, _WARMUP_EVALUATIONS
        )
        self.study = optuna.create_study(
            direction="maximize",
            # A resumed search must not repeat what was sampled before.
            sampler=optuna.samplers.TPESampler(seed=len(jobs), constant_liar=True),
            pruner=percentile if prune else optuna.pruners.NopPruner(),
        )
        self.open: dict[str, Settings] = {}
        self._distributions = _distributions(composer)
        self._trials: dict[str, Trial] = {}
        self._evaluations: dict[str, int] = {}
        self._next_number = 0
        self._lock = Lock()  # jobs are watched by another thread
        for job, result in jobs:
            params = {k: _parse(self._distributions[k], text) for k, text in job.settings.items()}
            self.study.enqueue_trial(params)
            self._ask(job.name)
            self.open[job.name] = job.settings
            self.tell(job, result)

    @property
    def count(self) -> int:
        """Number of trials, in whatever state."""
        return len(self.study.trials)

    def ask(self) -> str:
        """Sample the settings of a new trial; returns its name."""
        name = f"trial-{self._next_number:03d}"
        trial = self._ask(name)
        self.open[name] = {key: _format(value) for key, value in trial.params.items()}
        return name

    def should_prune(self, name: str, scores: Sequence[float]) -> bool:
        """Whether a trial with these dev scores, one for each evaluation, is clearly behind."""
        with self._lock:
            known, trial = self._evaluations.get(name, 0), self._trials.get(name)
            if trial is None or len(scores) <= known:
                return False
            self._report(name, scores)
            return trial.should_prune()

    def tell(self, job: JobRecord, result: RunRecord | None) -> None:
        """Report the end of a trial, if its job has ended and this was not reported before."""
        with self._lock:
            if job.name not in self.open:
                return
            if result is not None:
                self._report(job.name, _dev_scores(result))
                self.study.tell(self._trials[job.name], result.selection.value)
            elif job.state in _FAILURES:
                self.study.tell(self._trials[job.name], state=_FAILURES[job.state])
            else:
                return
            del self.open[job.name], self._trials[job.name]

    def _ask(self, name: str) -> Trial:
        self._next_number = trial_number(name) + 1
        self._trials[name] = self.study.ask(self._distributions)
        return self._trials[name]

    def _report(self, name: str, scores: Sequence[float]) -> None:
        """Report the best score so far at each new evaluation."""
        known = self._evaluations.get(name, 0)
        for evaluation, best in list(enumerate(accumulate(scores, max)))[known:]:
            self._trials[name].report(best, evaluation)
        self._evaluations[name] = len(scores)


def trial_number(name: str) -> int:
    """Number of a trial, from its name."""
    return int(name.rpartition("-")[2])


def _dev_scores(result: RunRecord) -> list[float]:
    return [scores[result.selection.metric] for scores in result.dev_history]


def _distributions(composer: Composer) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = {}
    for key, values in composer.space.axes.items():
        if key == LAYER and values == (ALL,):
            layers = composer.common_layers()
            found[key] = IntDistribution(layers[0], layers[-1])
        else:
            found[key] = CategoricalDistribution(values)
    return found | {key: _numeric(numbers) for key, numbers in composer.space.ranges.items()}


def _numeric(numbers: NumberRange) -> BaseDistribution:
    if numbers.is_integer:
        step = 1 if numbers.log else int(numbers.step or 1)
        return IntDistribution(int(numbers.low), int(numbers.high), log=numbers.log, step=step)
    return FloatDistribution(numbers.low, numbers.high, log=numbers.log, step=numbers.step)


def _format(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _parse(distribution: BaseDistribution, text: str) -> Any:
    """The parameter that `_format` has written; rounding must not leave the range."""
    if isinstance(distribution, IntDistribution):
        return int(text)
    if not isinstance(distribution, FloatDistribution):
        return text
    low, step, value = distribution.low, distribution.step, float(text)
    if step is not None:
        value = low + round((value - low) / step) * step
    return min(max(value, low), distribution.high)
