"""Leaderboard files of GLUE and SuperGLUE from the predictions of finished runs.

File names, labels and line formats are those of the suites' own writers (jiant) and of T5's.
"""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lpt.data.candidates import ANSWER, GROUP, ID
from lpt.data.splits import OFFICIAL
from lpt.errors import Problems, config_error
from lpt.files import write_atomically
from lpt.runs.predictions import predictions_file, read_predictions
from lpt.runs.record import RunRecord

logger = logging.getLogger(__name__)
Row = Mapping[str, str]
LineWriter = Callable[[Sequence[Row]], Iterable[str]]
_FOLDERS = {"GLUE": "glue", "SuperGLUE": "super_glue"}


class LeaderboardFile(NamedTuple):
    """A file of a leaderboard."""

    name: str
    """File name."""
    sources: tuple[tuple[str, str], ...]
    """(task, set) whose predictions it contains, the preferred one first."""
    size: int
    """Number of examples in that set, or of groups if the candidates of a group compete."""
    labels: tuple[str, ...] | None
    """Labels that it may contain; None: numbers."""
    write: LineWriter
    """Its lines from the rows of predictions.tsv in the order of their official ids."""


class SubmissionFile(NamedTuple):
    """A leaderboard file after an attempt to write it."""

    suite: str
    """GLUE or SuperGLUE."""
    name: str
    """File name."""
    run: Path | None
    """The run whose predictions it contains; None if it was not written."""
    reason: str = ""
    """Why it was not written."""


def _official_id(row: Row) -> tuple[int, ...]:
    """The id of a row in the official data; its number where the data have no ids.

    Raises:
        ValueError: It is not made of numbers.
    """
    text = next(row[name] for name in (ID, GROUP, "index") if name in row)
    try:
        return tuple(map(int, text.split("/")))
    except ValueError:
        raise ValueError(f"has an id that is no number: {text!r}") from None


def _glue_lines(rows: Sequence[Row]) -> Iterable[str]:
    """One line per example; the ids of GLUE's test sets count from 0."""
    yield "index\tprediction"
    for number, row in enumerate(rows):
        if _official_id(row) != (number,):
            first, last = (_official_id(row)[0] for row in (rows[0], rows[-1]))
            raise ValueError(f"has ids from {first} to {last}, not those from 0 to {len(rows) - 1}")
        yield f"{number}\t{row['prediction']}"


def _json_lines(rows: Sequence[Row], format_label: Callable[[str], str] = str) -> Iterable[str]:
    """One line per example."""
    for row in rows:
        yield json.dumps({"idx": _official_id(row)[0], "label": format_label(row["prediction"])})


def _chosen_lines(
    rows: Sequence[Row], format_answer: Callable[[str], object] = str
) -> Iterable[str]:
    """One line per group, with the answer of its chosen candidate."""
    for row in rows:
        if row["prediction"] == "1":
            yield json.dumps({"idx": int(row[GROUP]), "label": format_answer(row[ANSWER])})


def _multirc_lines(rows: Sequence[Row]) -> Iterable[str]:
    """One line per paragraph, nested as in the data."""
    paragraphs: dict[int, dict[int, list[dict[str, int]]]] = {}
    for row in rows:
        paragraph, question, answer = _official_id(row)
        answers = paragraphs.setdefault(paragraph, {}).setdefault(question, [])
        answers.append({"idx": answer, "label": int(row["prediction"])})
    for paragraph, questions in paragraphs.items():
        content = [{"idx": idx, "answers": answers} for idx, answers in questions.items()]
        yield json.dumps({"idx": paragraph, "passage": {"questions": content}})


_COPA_LINES = partial(_chosen_lines, format_answer=int)
_WSC_LINES = partial(_json_lines, format_label=str.capitalize)
_BINARY = ("0", "1")
_BOOL = ("false", "true")
_TWO = ("entailment", "not_entailment")
_THREE = ("entailment", "neutral", "contradiction")
_File = LeaderboardFile
SUITES: Mapping[str, tuple[LeaderboardFile, ...]] = {
    "GLUE": (
        _File("CoLA.tsv", (("cola", "test"),), 1063, _BINARY, _glue_lines),
        _File("SST-2.tsv", (("sst2", "test"),), 1821, _BINARY, _glue_lines),
        _File("MRPC.tsv", (("mrpc", "test"),), 1725, _BINARY, _glue_lines),
        _File("STS-B.tsv", (("stsb", "test"),), 1379, None, _glue_lines),
        _File("QQP.tsv", (("qqp", "test"),), 390965, _BINARY, _glue_lines),
        _File("MNLI-m.tsv", (("mnli", "test"),), 9796, _THREE, _glue_lines),
        _File("MNLI-mm.tsv", (("mnli", "test_mismatched"),), 9847, _THREE, _glue_lines),
        _File("QNLI.tsv", (("qnli", "test"),), 5463, _TWO, _glue_lines),
        _File("RTE.tsv", (("rte", "test"),), 3000, _TWO, _glue_lines),
        _File("WNLI.tsv", (("wnli", "test"),), 146, _BINARY, _glue_lines),
        _File("AX.tsv", (("mnli", "ax"), ("ax", "test")), 1104, _THREE, _glue_lines),
    ),
    "SuperGLUE": (
        _File("BoolQ.jsonl", (("boolq", "test"),), 3245, _BOOL, _json_lines),
        _File("CB.jsonl", (("cb", "test"),), 250, _THREE, _json_lines),
        _File("COPA.jsonl", (("copa", "test"),), 500, _BINARY, _COPA_LINES),
        _File("MultiRC.jsonl", (("multirc", "test"),), 9693, _BINARY, _multirc_lines),
        _File("ReCoRD.jsonl", (("record", "test"),), 10000, _BINARY, _chosen_lines),
        _File("RTE.jsonl", (("rte", "test"),), 3000, _TWO, _json_lines),
        _File("WiC.jsonl", (("wic", "test"),), 1400, _BOOL, _json_lines),
        _File("WSC.jsonl", (("wsc", "test"),), 146, _BOOL, _WSC_LINES),
        _File("AX-b.jsonl", (("rte", "ax-b"), ("ax-b", "test")), 1104, _TWO, _json_lines),
        _File("AX-g.jsonl", (("rte", "ax-g"), ("ax-g", "test")), 356, _TWO, _json_lines),
    ),
}


def make_submission(runs: Sequence[Path], out: Path) -> tuple[list[SubmissionFile], list[Path]]:
    """Write `glue.zip` and `super_glue.zip`, and their files in folders, as far as the runs go.

    Of several runs of a task, one is used for all of its files: the one with the best dev score
    among those that predicted the official test set, if there are any.

    Returns:
        Each file of the suites that any run belongs to, and the folders without a finished run.

    Raises:
        ConfigError: None of the folders has a finished run, or none of a task with a leaderboard.
    """
    finished, unfinished = _read_runs(runs)
    known = {task for files in SUITES.values() for file in files for task, _ in file.sources}
    if not known & finished.keys():
        found = f"only {', '.join(sorted(finished))}, which have no leaderboard"
        raise config_error("runs", found, f"runs of {', '.join(sorted(known))}")
    submission: list[SubmissionFile] = []
    for suite, files in SUITES.items():
        tasks = {task for file in files for task, _ in file.sources} & finished.keys()
        # RTE is in both suites; the other runs show which one is meant.
        if not tasks or (tasks == {"rte"} and len(known & finished.keys()) > 1):
            continue
        contents: dict[str, str] = {}
        for file in files:
            run, reason = None, f"no run of {' or '.join(task for task, _ in file.sources)}"
            for task, set_name in file.sources:
                if task in finished and run is None:
                    try:
                        contents[file.name] = _content(file, *finished[task], set_name)
                        run, reason = finished[task][0], ""
                    except ValueError as error:
                        reason = f"{finished[task][0]} {error}"
            submission.append(SubmissionFile(suite, file.name, run, reason))
        if contents:
            _write(out, suite, contents)
    return submission, unfinished


def _read_runs(folders: Sequence[Path]) -> tuple[dict[str, tuple[Path, RunRecord]], list[Path]]:
    """The run to use for each task, and the folders without a finished run."""
    finished: list[tuple[Path, RunRecord]] = []
    problems = Problems()
    for folder in folders:
        with problems.collect():
            finished.append((folder, RunRecord.read(folder)))
    if not finished:
        problems.raise_if_any()
    official = OFFICIAL.format("test")
    finished.sort(
        key=lambda run: (run[1].split.origin.get("test") == official, run[1].selection.value)
    )
    unfinished = [folder for folder in folders if folder not in dict(finished)]
    return {record.config["task"]["name"]: (path, record) for path, record in finished}, unfinished


def _content(file: LeaderboardFile, folder: Path, record: RunRecord, set_name: str) -> str:
    """The content of a leaderboard file.

    Raises:
        ValueError: The predictions are not those of the whole official set, by their number,
            labels or ids.
    """
    predictions = folder / predictions_file(set_name)
    if not predictions.is_file():
        raise ValueError(f"has no predictions for {set_name}")
    rows = read_predictions(folder, set_name)
    grouped = bool(rows) and ANSWER in rows[0]
    size = len({row[GROUP] for row in rows}) if grouped else len(rows)
    if size != file.size:
        origin = record.split.origin.get(set_name, "unknown origin")
        raise ValueError(f"has predictions for {size} of {file.size} ({set_name}: {origin})")
    if file.labels is not None and not {row["prediction"] for row in rows} <= set(file.labels):
        raise ValueError(f"has other labels than {', '.join(file.labels)}")
    if rows and not {ID, GROUP} & rows[0].keys():
        message = "%s: the data have no ids; %s takes their order for the official one."
        logger.warning(message, predictions, file.name)
    return "".join(f"{line}\n" for line in file.write(sorted(rows, key=_official_id)))


def _write(out: Path, suite: str, contents: Mapping[str, str]) -> None:
    """Write the files of a suite, and the zip of them that its leaderboard takes."""
    folder = out / _FOLDERS[suite]
    folder.mkdir(parents=True, exist_ok=True)
    for file in SUITES[suite]:
        (folder / file.name).unlink(missing_ok=True)  # of an earlier submission
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for name, content in contents.items():
            write_atomically(folder / name, content)
            # ZipInfo has a constant date, so that equal predictions give equal zips.
            writer.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    write_atomically(folder.with_suffix(".zip"), archive.getvalue())
