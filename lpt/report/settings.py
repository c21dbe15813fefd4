"""Settings: which config keys tell the runs of a study apart, and how their values are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lpt.config.command_line import LAYERS
from lpt.report.collect import CHOICES, HASH_DIGITS, SEEDS, Collection
from lpt.report.formatting import NOTHING, show

DATA = "split.sha256"
_FIRST = (
    *("model.name", "method.name", "prompt.kind", *LAYERS),
    *("prompt.length", "optim.lr"),
)
# That these follow from the task or from the model is no news.
_OWN = {
    "task": ["task.name"],
    "model": ["model.name"],
    "backbone": ["model.name"],
    "method": ["method.name"],
    "prompt": ["method.name"],
}
_SELF_EXPLANATORY = ("method.name", "prompt.kind", "model.name", "strategy.name", "loss")
_VAGUE = ("path", "sha256", "fingerprint", "name", "dir")  # without the group in front
_LONGEST_VALUE = 32


@dataclass(frozen=True, eq=False)
class Settings:
    """The settings of a study: each is one combination of the values of some keys.

    Attributes:
        keys: Those keys, without the task and the seeds.
        confounded: Keys that are left out because they vary only with choices of other config
            groups, such as a learning rate with the method.
        values: A row for each setting, in order, and a column for each key.
        texts: The same as shown; `#1`, `#2` stand for long values, a dash for a key that the
            method does not have.
        long_values: What these stand for, in words.
        number: Index in `values` of the setting of each run.
    """

    keys: list[str]
    confounded: list[str]
    values: pd.DataFrame
    texts: pd.DataFrame
    long_values: tuple[str, ...]
    number: pd.Series

    def label(self, setting: int, without: str | None = None) -> str:
        """A setting in a few words: the values of all keys but one."""
        return ", ".join(
            text if key in _SELF_EXPLANATORY else f"{title(key, self.keys)} {text}"
            for key, text in self.texts.loc[setting].items()
            if key != without and text != NOTHING
        )


def find_settings(collection: Collection) -> Settings:
    """Group runs by what differs between their configurations.

    Runs with different data at the same data seed are never in one setting.
    """
    config, swept = collection.runs[collection.keys], collection.swept
    config = config.where(config.notna(), None)
    config = config.assign(**{DATA: _conflicting_data(config, collection.runs["split"])})
    varying = [
        key
        for key in config.columns.drop([*SEEDS, "task.name"])
        if key in swept or config[key].nunique(dropna=False) > 1
    ]
    # Shown where nothing differs.
    kind = "prompt.kind" if "prompt.kind" in config else "method.name"
    defaults = [kind, *(key for key in LAYERS if key in config)]
    always = {*swept, *defaults}
    hidden = [key for key in varying if key not in always and _follows(config, key, CHOICES)]
    keys = [key for key in varying if key not in hidden] or defaults
    keys = sorted(keys, key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST))
    order = sorted(config.index, key=lambda run: [_order_of(v) for v in config.loc[run, keys]])
    ordered = config.loc[order, keys]
    number = ordered.groupby(keys, sort=False, dropna=False).ngroup()
    values = ordered.drop_duplicates(ignore_index=True)
    texts, long_values = values.map(show), []
    for key in keys:
        long = [text for text in texts[key].unique() if len(text) > _LONGEST_VALUE]
        short = {text: f"#{place}" for place, text in enumerate(long, 1)}
        long_values += [f"{title(key, keys)} {name}: {text}" for text, name in short.items()]
        texts[key] = texts[key].replace(short)
        first_runs = number.drop_duplicates().index
        texts[key] = texts[key].mask(_inapplicable(config, key)[first_runs].to_numpy(), NOTHING)
    confounded = [
        key for key in hidden if not _follows(config, key, _OWN.get(key.partition(".")[0], []))
    ]
    return Settings(keys, confounded, values, texts, tuple(long_values), number)


def _conflicting_data(config: pd.DataFrame, splits: pd.Series) -> pd.Series:
    """Checksum of a run's data where runs of its setting and data seed have others, else None.

    Then each draw of the data becomes a setting: a file was changed in between.
    """
    configured = [key for key in config if key not in SEEDS]
    setting = config.groupby(configured, sort=False, dropna=False).ngroup()
    draws = splits.groupby([setting, config["data.seed"]]).transform("nunique")
    conflict = (draws > 1).groupby(setting).transform("any")
    return splits.str[:HASH_DIGITS].astype(object).where(conflict, None)


def _inapplicable(config: pd.DataFrame, key: str) -> pd.Series:
    """Whether the method of each run has no such key, other than those of some other runs."""
    missing = config[key].isna()
    if missing.all() or key.partition(".")[0] not in ("method", "prompt"):
        return missing & False
    return missing.groupby(config["method.name"]).transform("all")


def _follows(config: pd.DataFrame, key: str, choices: Iterable[str]) -> bool:
    """Whether a key, which is not a choice itself, has one value for each combination of these."""
    present = [choice for choice in choices if choice in config]
    if key in CHOICES or not present:
        return False
    grouped = config.groupby(present, sort=False, dropna=False)[key]
    return bool(grouped.nunique(dropna=False).max() == 1)


def title(key: str, keys: Sequence[str]) -> str:
    """A key among others, as short as possible: of a choice its group, or a unique last part."""
    if key in CHOICES:
        return key.partition(".")[0]
    last = key.rpartition(".")[2]
    unique = sum(other.rpartition(".")[2] == last for other in keys) == 1
    return last if unique and last not in _VAGUE else key


def _order_of(value: Any) -> tuple[int, float, str]:
    """Sort key of values: null, then numbers by size, then text."""
    if pd.isna(value):
        return (0, 0.0, "")
    return (1, float(value), "") if is_number(value) else (2, 0.0, str(value))


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
