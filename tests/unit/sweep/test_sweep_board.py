"""What is told of a sweep while it runs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lpt.sweep import board
from lpt.sweep.board import Board, Seen, duration, look
from lpt.sweep.job import DONE, FAILED, INTERRUPTED, PRUNED, RUNNING, WAITING, Job
from tests.support.processes import until


def seen(name: str, state: str, *scores: float, reason: str | None = None) -> Seen:
    job = Job(name, {}, [], state=state, reason=reason, seconds=125.0)
    return Seen(job, 2 * len(scores), 20, scores)


def write(folder: Path, state: str, *scores: float, **known: Any) -> None:
    """A job that has come so far."""
    Job(folder.name, {}, [], state=state, folder=folder, **known).write()
    history = [{"step": 5 * i, "f1": score} for i, score in enumerate(scores, 1)]
    content = {"metric": "f1", "steps": 50, "dev_history": history}
    (folder / "progress.json").write_text(json.dumps(content))


class Clock:
    """A time that only passes when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        """What time it is."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(board, "time", clock)
    return clock


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=60)


def said(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_how_far_a_job_is(tmp_path: Path) -> None:
    assert look(tmp_path) is None
    write(tmp_path, RUNNING, 0.5, 0.75)
    found = look(tmp_path)
    assert found is not None
    assert (found.step, found.steps, found.scores) == (10, 50, (0.5, 0.75))
    write(tmp_path, RUNNING)
    found = look(tmp_path)
    assert found is not None
    assert (found.step, found.steps, found.scores) == (0, 50, ())


@pytest.mark.parametrize("content", [None, "", "{", "{}", '{"metric": "f1", "dev_history": [{}]}'])
def test_a_job_that_has_not_come_so_far(tmp_path: Path, content: str | None) -> None:
    write(tmp_path, RUNNING)
    (tmp_path / "progress.json").unlink()
    if content is not None:
        (tmp_path / "progress.json").write_text(content)
    job = Job.read(tmp_path)
    assert job is not None
    assert look(tmp_path) == Seen(job)


def test_counts_and_the_best_so_far() -> None:
    view = Board("layers", plain(), 9)
    states = [DONE, DONE, RUNNING, FAILED, INTERRUPTED, PRUNED]
    scores = [(0.5, 0.75, 0.625), (0.7,), (0.99,), (0.98,), (0.97,), (0.96,)]
    pairs = zip(states, scores, strict=True)
    found = [seen(f"job{i}", state, *of) for i, (state, of) in enumerate(pairs)]
    told = "2 done · 1 running · 1 failed · 3 to do · 1 interrupted · 1 pruned"
    assert view.summary(found) == f"{told} · best dev so far 0.750 (job0)"
    assert view.summary([]) == "9 to do"


def test_the_time_that_is_left(clock: Clock) -> None:
    view = Board("layers", plain(), 6)
    before = seen("before", DONE)
    assert view.summary([before]) == "1 done · 5 to do"
    clock.now += 60
    jobs = [before, seen("a", DONE), seen("b", PRUNED), seen("c", RUNNING)]
    # Two in a minute: two more and a half of one.
    assert view.summary(jobs) == "2 done · 1 running · 2 to do · 1 pruned · about 75 s left"
    clock.now += 600
    assert view.summary(jobs).endswith("about 14 min left")
    everything = [seen(str(i), DONE) for i in range(5)]
    assert view.summary([before, *everything]) == "6 done"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (125, "2 min"), (5990, "100 min"), (7200, "2.0 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_where_it_is_no_terminal_each_change_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "_EVERY_SECONDS", 0.01)
    console, looks = plain(), list[int]()
    view = Board("layers", console, 4)
    view.folders = [tmp_path / name for name in "abcd"]
    write(tmp_path / "a", DONE, 0.5)
    write(tmp_path / "b", WAITING)

    def several() -> None:
        begun = len(looks)
        until(lambda: len(looks) > begun + 2)

    with view.shown(lambda found: looks.append(len(found))):
        several()
        assert said(console) == []  # nothing has changed
        write(tmp_path / "b", RUNNING)
        several()
        write(tmp_path / "b", FAILED, reason="ValueError: [1] no")
        write(tmp_path / "c", RUNNING, 0.5)
        several()
    write(tmp_path / "d", RUNNING)
    lines = said(console)
    assert [line.partition("   [")[0] for line in lines] == [
        *("b running", "b failed: ValueError: [1] no", "c running")
    ]
    assert lines[0].endswith("[1 done · 1 running · 2 to do · best dev so far 0.500 (a)]")
    assert looks[-1] == 3


def test_the_last_change_is_told(tmp_path: Path) -> None:
    console = plain()
    view = Board("layers", console, 1)
    view.folders = [tmp_path / "a"]
    with view.shown():
        write(tmp_path / "a", DONE, 0.5, 0.75, seconds=125.0)
    told = "a finished, dev 0.750, 2 min   [1 done · best dev so far 0.750 (a)]"
    assert said(console) == [told]


def test_the_table_has_what_runs_and_what_has_failed() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, record=True, width=100)
    view = Board("layers", console, 30)
    failed = [seen(f"bad{i}", FAILED, reason=f"ValueError: {i}") for i in range(10)]
    found = [seen("ended", DONE, 0.5), seen("now", RUNNING, 0.25, 0.75), seen("later", WAITING)]
    console.print(view.render([*found, *failed]))
    text = console.export_text()
    assert "layers · 1 done · 1 running · 10 failed · 18 to do" in " ".join(text.split())
    [row] = [line for line in text.splitlines() if "now" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "now",
        "running",
        "4/20",
        "0.750",
    ]
    assert "failed: ValueError: 9" in text
    shown = [i for i in range(10) if f"bad{i}" in text]
    assert shown == list(range(2, 10))  # the last eight
    assert "later" not in text


@pytest.mark.parametrize("text", ["[/bold]", "[red]x", "a.tsv:100: x"])
def test_any_text_is_shown_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(board, "_EVERY_SECONDS", 0.01)
    console = Console(file=io.StringIO(), width=200)
    view = Board(text, console, 3)
    console.print(view.render([seen(f"job {text}", FAILED, reason=f"no {text}")]))
    [title] = [line for line in said(console) if "1 failed" in line]
    assert title.startswith(f"{text} · ")
    [row] = [line for line in said(console) if "job" in line and "no" in line]
    assert f"job {text}" in row
    assert f"failed: no {text}" in row
    view.folders = [tmp_path / "a"]
    with view.shown():
        write(tmp_path / "a", FAILED, reason=f"told {text}")
    assert f"a failed: told {text}   [" in said(console)[-1]


def test_on_a_terminal_the_table_is_live_and_goes_away(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    view = Board("layers", console, 1)
    view.folders = [tmp_path / "a"]
    write(tmp_path / "a", RUNNING, 0.5)
    with view.shown():
        until(lambda: "running" in "\n".join(said(console)))
    assert "\x1b[2K" in console.file.getvalue()  # type: ignore[attr-defined]  # lines are cleared
