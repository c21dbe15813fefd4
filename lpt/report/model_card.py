"""What is shared of a finished run: the files of its adapter, and a model card from its record."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from lpt.config.extras import check_extra
from lpt.config.resolve import flatten
from lpt.data.splits import OFFICIAL, SAMPLED
from lpt.errors import Problems
from lpt.report.formatting import NOTHING, number
from lpt.runs.adapter import AdapterDescription
from lpt.runs.find_adapter import TENSORS_FILE
from lpt.runs.job_record import SWEEP
from lpt.runs.record import RunRecord
from lpt.runs.run_dir import ADAPTER, METRICS_FILE

CARD = "README.md"  # as the Hub names it
_OF_PEFT = "adapter_config.json"
_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
# Overrides that only say where something is written, and those that say where data are.
_NO_SETTINGS = ("run_dir", "resume", "overwrite", "dry_run", "logger", "cache.", "hydra", "sweep.")
_FOLDERS = ("data.path", "data.root", "data.verify", "model.path", "task.files", "task.extra")
_LOCAL_PATH = re.compile(r"(^|[\s\"'\[{,:=])(~|\.{1,2})?/|\\")


def shared_files(run_dir: Path, repo: str | None = None) -> dict[str, Path | bytes]:
    """Content, or the file with it, of each file that is shared of a run; the card is the last one.

    Args:
        run_dir: Folder of a finished run. If it lies in the folder of a sweep, the card has mean
            and standard deviation over the runs of its setting.
        repo: Where it will be on the Hub; None for a folder.

    Raises:
        ConfigError: The run is not finished, its adapter is damaged or belongs to another run or
            holds training texts, or a library of the extra `report` is missing.
    """
    problems = Problems()
    check_extra("report", "report", problems)
    if not (run_dir / METRICS_FILE).is_file():
        given = "a sweep" if (run_dir / SWEEP).is_file() else f"no {METRICS_FILE} in it"
        problems.add(str(run_dir), given, "the folder of a finished run", "name one run")
    problems.raise_if_any()
    with problems.collect():
        record = RunRecord.read(run_dir)
    with problems.collect():
        adapter = AdapterDescription.read(run_dir / ADAPTER)
    problems.raise_if_any()
    names = (TENSORS_FILE, _OF_PEFT, adapter.file_name)
    files = {name: run_dir / ADAPTER / name for name in names}
    if not _is_whole(files[TENSORS_FILE], adapter.sha256):
        problems.add(
            str(files[TENSORS_FILE]), "damaged or missing", f"the SHA-256 {adapter.sha256}"
        )
    if adapter.backbone.fingerprint != record.backbone.fingerprint:
        given = f"an adapter for the backbone {adapter.backbone.fingerprint}"
        problems.add(
            str(run_dir / ADAPTER), given, f"that of the run, {record.backbone.fingerprint}"
        )
    if adapter.demonstrations:
        given = f"{len(adapter.demonstrations)} training texts (method {adapter.method.name})"
        problems.add(str(run_dir / ADAPTER), given, "a method that trains something")
    problems.raise_if_any()
    card = _card(run_dir, record, adapter, repo)
    return {name: file for name, file in files.items() if file.is_file()} | {CARD: card.encode()}


def _is_whole(tensors: Path, sha256: str) -> bool:
    return tensors.is_file() and hashlib.sha256(tensors.read_bytes()).hexdigest() == sha256


def _card(run_dir: Path, record: RunRecord, adapter: AdapterDescription, repo: str | None) -> str:
    summary = _over_seeds(run_dir)
    task, runs = adapter.task, int(summary[(f"dev/{record.metrics[0]}", "count")])
    name = (repo or run_dir.resolve().name).rpartition("/")[2]
    base, config = adapter.backbone.path, flatten(record.config)
    data = ModelCardData(
        base_model=base,
        base_model_relation="adapter" if base is not None else None,
        library_name="lpt",
        pipeline_tag="text-classification",
        tags=["lpt", adapter.method.name.replace("_", "-"), *["peft"] * _is_peft(run_dir)],
        datasets=[config["task.hub"]] if _official(config) else None,
        metrics=record.metrics,
        model_name=name,
        eval_results=list(_eval_results(record, config, summary, runs)) or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        name=name,
        repo=repo or "FOLDER",
        record=record,
        config=config,
        adapter=adapter,
        labels=dict(zip(task.labels, task.label_words, strict=True)),
        columns=re.findall(r"{(\w+)}", task.template.replace("{word}", "")),
        scores=list(_score_rows(record, summary)),
        runs=runs,
        method=_method(adapter),
        command=_command(record, base),
    )
    return str(card)


def _is_peft(run_dir: Path) -> bool:
    return (run_dir / ADAPTER / _OF_PEFT).is_file()


def _official(config: Mapping[str, Any]) -> bool:
    """Whether the data of a run were the official ones, as far as its configuration tells."""
    return config.get("task.hub") is not None and config.get("data.path") is None


def _over_seeds(run_dir: Path) -> Mapping[tuple[str, str], float]:
    """Measures of the runs with the setting of a run, in the sweep around it: mean, std, count."""
    from lpt.report.collect import collect
    from lpt.report.study import arrange

    top = run_dir.resolve()
    top = top.parent if (top.parent / SWEEP).is_file() else top
    problems = Problems()
    collection = collect([top], run_dir, problems)
    problems.raise_if_any()
    study = arrange(collection)
    [row] = collection.runs.index[collection.runs["folder"] == "."]
    [task] = [t for t in study.tasks if t.name == collection.runs["task.name"][row]]
    summary: Mapping[tuple[str, str], float] = task.summary.loc[study.settings.number[row]]
    return summary


def _score_rows(
    record: RunRecord, summary: Mapping[tuple[str, str], float]
) -> Iterator[tuple[str, ...]]:
    """Set, metric, majority class, zero-shot, score; and its mean and deviation over the runs."""
    for name, scores in record.scores().items():
        for metric, value in (scores or {}).items():
            baselines = [
                number(found[metric]) if (found := kind.get(name)) and metric in found else NOTHING
                for kind in (record.majority, record.zero_shot)
            ]
            measure = f"{name}/{metric}"
            spread = f"{number(summary[measure, 'mean'])} ± {number(summary[measure, 'std'])}"
            yield name, metric, *baselines, number(value), spread


def _eval_results(
    record: RunRecord,
    config: Mapping[str, Any],
    summary: Mapping[tuple[str, str], float],
    runs: int,
) -> Iterator[EvalResult]:
    """Scores of the test sets for the model index: of this adapter, and their mean over the runs.

    Without a labeled test set, those of dev. A sample of a set is left out: its score is none of
    the set that the index names.
    """
    scores = {name: found for name, found in record.scores().items() if found}
    for name in [name for name in scores if name != "dev"] or ["dev"]:
        sampled = SAMPLED in record.split.origin.get(name, "")
        for metric, value in scores[name].items() if not sampled else ():
            mean, deviation = (summary[f"{name}/{metric}", kind] for kind in ("mean", "std"))
            values = {metric: value}
            if not math.isnan(deviation):
                title = f"{metric}, mean of {runs} runs (standard deviation {deviation:.3f})"
                values[title] = float(mean)
            for title, shown in values.items():
                yield EvalResult(
                    task_type="text-classification",
                    dataset_type=config["task.hub"] if _official(config) else config["task.name"],
                    dataset_name=config["task.name"],
                    dataset_config=config.get("task.hub_config") if _official(config) else None,
                    dataset_split=_hub_split(record, config, name),
                    metric_type=metric,
                    metric_name=title,
                    metric_value=round(shown, 4),
                )


def _hub_split(record: RunRecord, config: Mapping[str, Any], name: str) -> str:
    """The split on the Hub that a set is; its own name where it is none."""
    origin = record.split.origin.get(name, "")
    for split in ("train", "dev", "test"):
        if _official(config) and origin == OFFICIAL.format(split):
            return str(config.get(f"task.hub_splits.{split}", name))
    return name


def _method(adapter: AdapterDescription) -> str:
    """The method and its settings in a line."""
    settings = (adapter.prompt or adapter.method).model_dump(exclude={"name", "kind"})
    shown = [
        f"{key} {_plain(value)}" for key, value in settings.items() if value not in (None, [], {})
    ]
    kind = [adapter.prompt.kind] if adapter.prompt is not None else []
    name = adapter.method.name.replace("_", " ")
    return ", ".join([name, *kind, f"from layer {adapter.layer} up", *shown])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _command(record: RunRecord, base: str | None) -> str | None:
    """The command of the run without paths of the machine; None for a run from Python."""
    shown = []
    for override in record.command:
        key, equals, value = override.partition("=")
        if key.lstrip("+~").startswith(_NO_SETTINGS):
            continue
        is_path = key.startswith(_FOLDERS) or _LOCAL_PATH.search(value)
        shown.append(f"{key}=..." if equals and is_path and value != base else override)
    return shlex.join(["lpt-train", *shown]) if record.command else None
