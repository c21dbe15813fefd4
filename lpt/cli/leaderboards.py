"""Leaderboard files of GLUE and SuperGLUE from the answers that finished runs left.

File names, labels and line formats are those of the suites' own writers (jiant) and of T5's.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpt.data.candidates import ANSWER, GROUP, ID
from lpt.data.splits import OFFICIAL
from lpt.data.tables import read_table
from lpt.errors import ConfigError, Problems, config_error
from lpt.files import write_atomically
from lpt.report.check import read_metrics
from lpt.runs.record import FINISHED, predictions_file

Row = Mapping[str, str]
_DATE = (1980, 1, 1, 0, 0, 0)  # of every file in a zip, so that the same answers give the same zip


class Entry(NamedTuple):
    """One file of a leaderboard.

    Attributes:
        file: Its name.
        given: (task, set) whose answers it takes, the preferred one first.
        rows: Examples of that set, or groups.
        labels: The labels it may hold; None: a number from 0 to 5.
        write: Its lines from the rows of predictions.tsv.
        by_group: Whether `rows` counts groups.
    """

    file: str
    given: tuple[tuple[str, str], ...]
    rows: int
    labels: tuple[str, ...] | None
    write: Callable[[Sequence[Row]], Iterable[str]]
    by_group: bool = False

    def allows(self, prediction: str) -> bool:
        """Whether the leaderboard takes that answer."""
        if self.labels is not None:
            return prediction in self.labels
        try:
            return 0 <= float(prediction) <= 5
        except ValueError:
            return False


class Made(NamedTuple):
    """What became of an entry.

    Attributes:
        suite: GLUE or SuperGLUE.
        file: Its name.
        run: The run whose answers it holds; None where it is missing.
        why_not: Why it is missing.
    """

    suite: str
    file: str
    run: Path | None
    why_not: str = ""


def _glue(rows: Sequence[Row]) -> Iterable[str]:
    yield "index\tprediction"
    yield from (f"{row['index']}\t{row['prediction']}" for row in rows)


def _lines(label: Callable[[str], Any]) -> Callable[[Sequence[Row]], Iterable[str]]:
    def write(rows: Sequence[Row]) -> Iterable[str]:
        for row in rows:
            idx = int(row.get(ID, row["index"]))
            yield json.dumps({"idx": idx, "label": label(row["prediction"])})

    return write


def _chosen(label: Callable[[str], Any]) -> Callable[[Sequence[Row]], Iterable[str]]:
    """One line a group: what its chosen candidate stands for."""

    def write(rows: Sequence[Row]) -> Iterable[str]:
        for row in rows:
            if row["prediction"] == "1":
                yield json.dumps({"idx": int(row[GROUP]), "label": label(row[ANSWER])})

    return write


def _multirc(rows: Sequence[Row]) -> Iterable[str]:
    """One line a paragraph, nested as the data are."""
    paragraphs: dict[int, dict[int, list[dict[str, int]]]] = {}
    for row in rows:
        paragraph, question, answer = map(int, row[ID].split("/"))
        answers = paragraphs.setdefault(paragraph, {}).setdefault(question, [])
        answers.append({"idx": answer, "label": int(row["prediction"])})
    for paragraph, questions in paragraphs.items():
        listed = [{"idx": idx, "answers": answers} for idx, answers in questions.items()]
        yield json.dumps({"idx": paragraph, "passage": {"questions": listed}})


_BINARY = ("0", "1")
_BOOL = ("false", "true")
_TWO = ("entailment", "not_entailment")
_THREE = ("entailment", "neutral", "contradiction")
_RTE = (("rte", "test"),)
SUITES: Mapping[str, tuple[Entry, ...]] = {
    "GLUE": (
        Entry("CoLA.tsv", (("cola", "test"),), 1063, _BINARY, _glue),
        Entry("SST-2.tsv", (("sst2", "test"),), 1821, _BINARY, _glue),
        Entry("MRPC.tsv", (("mrpc", "test"),), 1725, _BINARY, _glue),
        Entry("STS-B.tsv", (("stsb", "test"),), 1379, None, _glue),
        Entry("QQP.tsv", (("qqp", "test"),), 390965, _BINARY, _glue),
        Entry("MNLI-m.tsv", (("mnli", "test"),), 9796, _THREE, _glue),
        Entry("MNLI-mm.tsv", (("mnli", "test_mismatched"),), 9847, _THREE, _glue),
        Entry("QNLI.tsv", (("qnli", "test"),), 5463, _TWO, _glue),
        Entry("RTE.tsv", _RTE, 3000, _TWO, _glue),
        Entry("WNLI.tsv", (("wnli", "test"),), 146, _BINARY, _glue),
        Entry("AX.tsv", (("mnli", "ax"), ("ax", "test")), 1104, _THREE, _glue),
    ),
    "SuperGLUE": (
        Entry("BoolQ.jsonl", (("boolq", "test"),), 3245, _BOOL, _lines(str)),
        Entry("CB.jsonl", (("cb", "test"),), 250, _THREE, _lines(str)),
        Entry("COPA.jsonl", (("copa", "test"),), 500, _BINARY, _chosen(int), True),
        Entry("MultiRC.jsonl", (("multirc", "test"),), 9693, _BINARY, _multirc),
        Entry("ReCoRD.jsonl", (("record", "test"),), 10000, _BINARY, _chosen(str), True),
        Entry("RTE.jsonl", _RTE, 3000, _TWO, _lines(str)),
        Entry("WiC.jsonl", (("wic", "test"),), 1400, _BOOL, _lines(str)),
        Entry("WSC.jsonl", (("wsc", "test"),), 146, _BOOL, _lines(str.capitalize)),
        Entry("AX-b.jsonl", (("rte", "ax-b"), ("ax-b", "test")), 1104, _TWO, _lines(str)),
        Entry("AX-g.jsonl", (("rte", "ax-g"), ("ax-g", "test")), 356, _TWO, _lines(str)),
    ),
}


def make_submission(runs: Sequence[Path], out: Path) -> tuple[list[Made], list[Path]]:
    """Write what the runs can fill: `glue.zip`, `super_glue.zip`, and their files in folders.

    Of several runs of a task one is taken for all its files: that with the best dev score, of
    those that answered the official test set if there are any.

    Returns:
        Each file of the suites that any run belongs to, with its run or why it is missing; and the
        folders that hold no finished run.

    Raises:
        ConfigError: None of the folders holds one.
    """
    finished, skipped = _read_runs(runs)
    made: list[Made] = []
    for suite, entries in SUITES.items():
        tasks = {task for entry in entries for task, _ in entry.given} & finished.keys()
        # RTE is in both suites: of other runs, those say which one is meant.
        if not tasks or (tasks == {"rte"} and len(finished) > 1):
            continue
        files: dict[str, str] = {}
        for entry in entries:
            run, why_not = None, f"no run of {' or '.join(task for task, _ in entry.given)}"
            for task, set_name in entry.given:
                if task in finished and run is None:
                    try:
                        files[entry.file] = _fill(entry, finished[task], set_name)
                        run, why_not = finished[task].folder, ""
                    except ConfigError as error:
                        why_not = error.problems[0].given
            made.append(Made(suite, entry.file, run, why_not))
        if files:
            _write(out, suite, files)
    return made, skipped


class Run(NamedTuple):
    """A finished run, as far as a submission needs it.

    Attributes:
        folder: Its folder.
        task: Its task.
        dev: Its dev score.
        origin: Where each of its sets comes from.
    """

    folder: Path
    task: str
    dev: float
    origin: Mapping[str, str]

    @property
    def rank(self) -> tuple[bool, float]:
        """The higher, the rather its answers are taken."""
        return self.origin.get("test") == OFFICIAL.format("test"), self.dev


def _read_runs(runs: Sequence[Path]) -> tuple[dict[str, Run], list[Path]]:
    """The run of each task whose answers are taken, and the folders without a finished run."""
    finished: list[Run] = []
    skipped = []
    for run in runs:
        try:
            metrics = read_metrics(run / FINISHED)
        except ConfigError:
            skipped.append(run)
        else:
            origin, dev = metrics["protocol"]["origin"], float(metrics["selection"]["value"])
            finished.append(Run(run, metrics["task"], dev, origin))
    if not finished:
        problems = Problems()
        for run in skipped:
            problems.add(str(run), f"no {FINISHED} of a run", "folders of finished runs")
        problems.raise_if_any()
    return {run.task: run for run in sorted(finished, key=lambda run: run.rank)}, skipped


def _fill(entry: Entry, run: Run, set_name: str) -> str:
    """The content of an entry; refuses answers to other than the whole official set."""
    file = run.folder / predictions_file(set_name)
    if not file.is_file():
        raise _unfit(run, f"did not answer {set_name}")
    table = read_table(file)
    rows: list[Row] = [
        {name: values[at] or "" for name, values in table.columns.items()}
        for at in range(len(table))
    ]
    chosen = Counter(row.get(GROUP) for row in rows if row["prediction"] == "1")
    groups = {row.get(GROUP) for row in rows}
    units = len(groups) if entry.by_group else len(rows)
    if units != entry.rows:
        origin = run.origin.get(set_name, "of unknown origin")
        raise _unfit(run, f"answers {units} of {entry.rows} ({set_name}: {origin})")
    if [row["index"] for row in rows] != [str(number) for number in range(len(rows))]:
        raise _unfit(run, f"lacks rows of {set_name}")
    if entry.by_group and any(chosen[group] != 1 for group in groups):
        raise _unfit(run, "has groups without exactly one answer")
    strange = {row["prediction"] for row in rows if not entry.allows(row["prediction"])}
    if strange:
        expected = ", ".join(entry.labels) if entry.labels else "numbers from 0 to 5"
        raise _unfit(run, f"has labels {', '.join(sorted(strange))}, not {expected}")
    try:
        return "".join(f"{line}\n" for line in entry.write(rows))
    except (KeyError, ValueError) as error:
        raise _unfit(run, f"has no official ids: {error}") from error


def _unfit(run: Run, given: str) -> ConfigError:
    return config_error(str(run.folder), f"{run.folder} {given}")


def _write(out: Path, suite: str, files: Mapping[str, str]) -> None:
    """The files of a suite, and the zip of them that its leaderboard takes."""
    name = {"GLUE": "glue", "SuperGLUE": "super_glue"}[suite]
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    for entry in SUITES[suite]:
        (folder / entry.file).unlink(missing_ok=True)  # of an earlier submission
    for file, content in files.items():
        write_atomically(folder / file, content)
    unfinished = out / f".{name}.zip.unfinished"
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            archive.writestr(zipfile.ZipInfo(file, _DATE), content)
    unfinished.replace(out / f"{name}.zip")
