"""`lpt-predict`: rows of a file or stream in, predictions out, a window of rows at a time."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from lpt.config.command_line import config_groups
from lpt.config.compose import compose_grid
from lpt.config.schema import CONF_DIR
from lpt.config.task_schema import TaskConfig
from lpt.data.candidates import GROUP, ID
from lpt.data.eval_output import EvalOutput, prediction_columns
from lpt.data.examples import Examples, build_examples
from lpt.data.tables import Table, count_lines, read_stream, read_tables
from lpt.data.tasks import Task
from lpt.data.templates import Template
from lpt.errors import ConfigError, Problems, config_error
from lpt.files import open_atomically
from lpt.predictor import Predictor
from lpt.runs.adapter import AdapterDescription, TaskDescription, find_adapter_backbone
from lpt.runs.environment import check_device
from lpt.runs.find_adapter import find_adapter
from lpt.runs.predictions import one_line
from lpt.runs.record import RunRecord
from lpt.runs.run_dir import METRICS_FILE
from lpt.training.evaluation import Evaluator
from lpt.training.metrics import Predictions, compute_metrics

STDIN = "-"
_WINDOW = 32  # batches whose rows are read, sorted by length and written together
_OF_WHOLE_SETS = ("gender_parity",)  # read the texts of neighboring rows
_HINTS = {
    "task.template": "give the column that name",
    "task.label": "correct the row, or read no labels: --label-column ''",
}
_Columns = Mapping[str, Sequence[str]]


class Result(NamedTuple):
    """What was done.

    Attributes:
        rows: Number of rows.
        seconds: Time for them, without that for loading the model.
        labeled: Number of rows with a label.
        metrics: The task's metrics over the labeled rows; empty if there are none.
    """

    rows: int
    seconds: float
    labeled: int
    metrics: dict[str, float]


def predict_rows(
    *,
    adapter: str,
    input: str,
    out: Path | None,
    model: str | None,
    device: str,
    dtype: str | None,
    batch_size: int,
    label_column: str | None,
) -> Result:
    """Predict the rows of the input; the arguments are those of `lpt-predict --help`.

    Raises:
        ConfigError: Something given is wrong, most of it before weights are loaded; the file to be
            written is as it was before.
        OSError: The output cannot be written.
    """
    problems = Problems()
    if batch_size < 1:
        problems.add("--batch-size", str(batch_size), "at least 1")
    _check_files(input, out, problems)
    with problems.collect():
        check_device(device, dtype)
    with problems.collect():
        folder = find_adapter(adapter)
        task = _task(folder, label_column)
        with problems.collect():
            find_adapter_backbone(folder, model)
        windows = _open_windows(input, task, _WINDOW * max(1, batch_size), label_column)
    problems.raise_if_any()
    disable_progress_bar()  # of loading weights: ours is for the rows
    predictor = Predictor(folder, device, model, dtype=dtype)
    started, count, labeled = time.perf_counter(), 0, list[EvalOutput]()
    total = None if input == STDIN else count_lines(Path(input))
    bar = tqdm(desc="predicting", unit=" rows", total=total, disable=None)
    with bar, _open_output(out) as write:
        for table, examples in windows:
            output = _predict(predictor, task, table, examples, batch_size)
            write(prediction_columns(output, task))
            labeled += _labeled(output)
            count += len(examples)
            bar.update(len(table))
    seconds = time.perf_counter() - started
    return Result(count, seconds, sum(len(o.labels) for o in labeled), _metrics(task, labeled))


def _check_files(source: str, out: Path | None, problems: Problems) -> None:
    exists = source != STDIN and Path(source).exists()
    if source != STDIN and not exists:
        problems.add(str(Path(source)), os.strerror(errno.ENOENT), "a readable file")
    if out is None:
        return
    if out.suffix not in _FORMATS:
        problems.add("--out", str(out), f"a file name that ends in {', '.join(_FORMATS)}")
    if not out.parent.is_dir() or out.is_dir():
        given = f"{out if out.is_dir() else out.parent}"
        problems.add("--out", f"{given} is {'a' if out.is_dir() else 'no'} folder", "a file")
    elif exists and out.exists() and out.samefile(source):
        problems.add("--out", f"{out}, which is the input", "another file")


def _task(folder: Path, label_column: str | None) -> Task:
    """The task of an adapter, with the data as the run around it or a task of lpt has them."""
    described = AdapterDescription.read(folder).task
    config = _task_config(folder, described)
    config = replace(
        config,
        name=described.name,
        labels=list(described.labels),
        label_words=list(described.label_words),
        label_column=config.label_column if label_column is None else label_column,
    )
    return Task(config, Template.parse(described.template, described.kind))


def _task_config(folder: Path, described: TaskDescription) -> TaskConfig:
    run_dir = folder.absolute().parent
    if (run_dir / METRICS_FILE).is_file():
        return TaskConfig(**{**RunRecord.read(run_dir).config["task"], "extra": {}})
    if described.name in config_groups(CONF_DIR)["task"] and described.name != "custom":
        overrides = [f"task={described.name}", "model=local", "model.path=unused"]
        task = compose_grid(overrides)[0].task
        if tuple(task.labels) == described.labels:
            return task
    if described.value_range is not None:
        return TaskConfig(name=described.name, task_type="regression", metric="pearson")
    return TaskConfig(name=described.name)


def _read(source: str, task: Task, size: int) -> Iterator[Table]:
    if source != STDIN:
        config, path = task.config, Path(source)
        skip_short_rows = config.skip_short_rows
        return read_tables(path, config.header, size=size, skip_short_rows=skip_short_rows)
    columns = task.template.columns
    column = columns[0] if len(columns) == 1 and task.config.row_expansion is None else None
    return read_stream(sys.stdin.buffer, "standard input", column, size)


def _open_windows(
    source: str, task: Task, size: int, label_column: str | None
) -> Iterator[tuple[Table, Examples]]:
    """The rows of the input in windows, of which the first one has been read and checked."""
    windows = _windows(task, _read(source, task, size))
    first = next(windows, None)
    if first is None:
        name = "standard input" if source == STDIN else source
        raise config_error(name, "no rows", "at least one row")
    columns = first[0].columns
    if label_column and label_column not in columns:
        given = f"no column {label_column} (it has: {', '.join(columns)})"
        raise config_error("--label-column", given, "a column of the input, or '' to read none")
    return chain([first], windows)


def _windows(task: Task, tables: Iterator[Table]) -> Iterator[tuple[Table, Examples]]:
    start = 0
    for table in tables:
        examples = _examples(task, table, start)
        yield table, examples
        start += len(examples)


def _examples(task: Task, table: Table, start: int) -> Examples:
    """All rows of a table, numbered from `start`; a label to be skipped counts as unknown."""
    config, columns = task.config, dict(table.columns)
    for name in {config.label_column, *config.aliases.get(config.label_column, ())} & {*columns}:
        columns[name] = [None if cell in config.skip_labels else cell for cell in columns[name]]
    ids = next((name for name in config.id_columns if name in columns), None)
    plain = replace(task, config=replace(config, skip_labels=[], id_columns=[]))
    try:
        examples = build_examples(plain, replace(table, columns=columns), need_labels=False)
    except ConfigError as error:  # the hints are those for training
        hints = [[h for key, h in _HINTS.items() if key in p.hint] for p in error.problems]
        pairs = zip(error.problems, hints, strict=True)
        raise ConfigError(replace(p, hint=(h or [p.hint])[0]) for p, h in pairs) from error
    metadata = dict(examples.metadata)
    if ids is not None and config.row_expansion is None:
        metadata[ID] = [cell or "" for cell in columns[ids]]
    row_ids = list(range(start, start + len(examples)))
    return replace(examples, row_ids=row_ids, metadata=metadata)


def _predict(
    predictor: Predictor, task: Task, table: Table, examples: Examples, batch_size: int
) -> EvalOutput:
    expanded = len(examples) != len(table)

    def location(row: int) -> str:
        return f"{table.name}: example {examples.row_ids[row]}" if expanded else table.location(row)

    scores = predictor.score(examples.columns, batch_size, location)
    evaluator = Evaluator(task, {"test": examples})
    output = evaluator.predict("test", Predictions(torch.tensor(examples.row_ids), scores))
    return output._replace(examples=replace(examples, columns={}))


def _labeled(output: EvalOutput) -> list[EvalOutput]:
    """What metrics need of the rows with labels, if there are any."""
    positions = output.examples.labeled_positions()
    if not positions:
        return []
    chosen = output.select(positions)
    metadata = chosen.examples.metadata if GROUP in chosen.examples.metadata else {}
    examples = replace(chosen.examples, row_ids=[], metadata=metadata)
    return [chosen._replace(examples=examples, scores=None)]


def _metrics(task: Task, outputs: Sequence[EvalOutput]) -> dict[str, float]:
    if not outputs:
        return {}
    parts = [output.examples for output in outputs]
    labels = [label for part in parts for label in part.labels]
    metadata = {
        name: [value for part in parts for value in part.metadata[name]]
        for name in parts[0].metadata
    }
    whole = outputs[0]._replace(
        predicted=torch.cat([output.predicted for output in outputs]),
        labels=torch.cat([output.labels for output in outputs]),
        examples=Examples({}, labels, [], metadata),
    )
    names = [name for name in task.metrics_for("test") if name not in _OF_WHOLE_SETS]
    return compute_metrics(whole, names)


@contextmanager
def _open_output(out: Path | None) -> Iterator[Callable[[_Columns], None]]:
    """Writes columns to a file, by its suffix, or as TSV to standard output."""
    header: list[str] = []
    format_rows = _FORMATS[".tsv" if out is None else out.suffix]
    with nullcontext(sys.stdout.buffer) if out is None else open_atomically(out) as file:

        def write(columns: _Columns) -> None:
            head = not header
            header.extend(columns if head else ())
            count = len(columns["prediction"])
            cells = (columns.get(name, [""] * count) for name in header)
            text = format_rows(header, zip(*cells, strict=True), head)
            file.write(text.encode())
            file.flush()

        yield write


def _tsv(header: Sequence[str], rows: Iterable[Sequence[str]], head: bool) -> str:
    lines = chain([header] if head else [], rows)
    return "".join("\t".join(map(one_line, cells)) + "\n" for cells in lines)


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]], head: bool) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(chain([header] if head else [], rows))
    return text.getvalue()


def _jsonl(header: Sequence[str], rows: Iterable[Sequence[str]], head: bool) -> str:
    """Numbers as such: the index of the row and the probabilities."""
    read = [int if n == "index" else float if n.startswith("p(") else str for n in header]
    records = ({n: f(c) for n, f, c in zip(header, read, row, strict=True)} for row in rows)
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


_FORMATS = {".tsv": _tsv, ".csv": _csv, ".jsonl": _jsonl}
