"""A search by Optuna, in memory: the folders of its jobs are the record that it is resumed from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial, TrialState

from lpt.runs.job_record import SETTINGS, JobRecord, JobState, NumberRange
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
        self._couples = list(composer.space.couples)
        self._distributions = _distributions(composer)
        self._trials: dict[str, Trial] = {}
        self._next_number = 0
        for job, result in jobs:
            self.study.enqueue_trial(self._params(job.settings))
            self._next_number = trial_number(job.name)
            self.ask()
            self.tell(job, result)

    @property
    def count(self) -> int:
        """Number of trials, in whatever state."""
        return len(self.study.trials)

    def ask(self) -> str:
        """Sample the settings of a new trial; returns its name."""
        name = f"trial-{self._next_number:03d}"
        self._next_number += 1
        trial = self._trials[name] = self.study.ask(self._distributions)
        params = dict(trial.params)
        couple = self._couples[params.pop(SETTINGS)]
        self.open[name] = {**couple, **{key: _format(value) for key, value in params.items()}}
        return name

    def _params(self, settings: Settings) -> dict[str, Any]:
        """What Optuna has sampled, from the settings of a trial."""
        coupled = {key for couple in self._couples for key in couple}
        couple = {key: text for key, text in settings.items() if key in coupled}
        single = {k: text for k, text in settings.items() if k not in coupled}
        params = {k: _parse(self._distributions[k], text) for k, text in single.items()}
        return {SETTINGS: self._couples.index(couple), **params}

    def should_prune(self, name: str, scores: Sequence[float]) -> bool:
        """Whether a trial with these dev scores, one for each evaluation, is clearly behind."""
        trial = self._trials.get(name)
        return trial is not None and self._report(trial, scores) and trial.should_prune()

    def tell(self, job: JobRecord, result: RunRecord | None) -> None:
        """Report the end of a trial, if its job has ended and this was not reported before."""
        trial = self._trials.get(job.name)
        if trial is None or (result is None and job.state not in _FAILURES):
            return
        if result is not None:
            metric = result.selection.metric
            self._report(trial, [scores[metric] for scores in result.dev_history])
            self.study.tell(trial, result.selection.value)
        else:
            self.study.tell(trial, state=_FAILURES[job.state])
        del self.open[job.name], self._trials[job.name]

    def _report(self, trial: Trial, scores: Sequence[float]) -> bool:
        """Report the best score so far at each new evaluation; returns whether there is any."""
        reported = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        best_scores = list(enumerate(accumulate(scores, max)))[len(reported) :]
        for evaluation, best in best_scores:
            trial.report(best, evaluation)
        return bool(best_scores)


def trial_number(name: str) -> int:
    """Number of a trial, from its name."""
    return int(name.rpartition("-")[2])


def _distributions(composer: Composer) -> dict[str, BaseDistribution]:
    axes, ranges = composer.space.axes, composer.space.ranges
    found: dict[str, BaseDistribution] = {k: CategoricalDistribution(v) for k, v in axes.items()}
    found[SETTINGS] = CategoricalDistribution(range(len(composer.space.couples)))
    if (key := composer.space.all_layers) is not None:
        layers = composer.common_layers()
        found[key] = IntDistribution(layers[0], layers[-1])
    return found | {key: _numeric(numbers) for key, numbers in ranges.items()}


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
