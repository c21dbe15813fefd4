"""Two runs for one folder: one has it, the other is told so, and changes nothing in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lpt import experiment
from lpt.config.schema import Config
from lpt.errors import ConfigError
from lpt.experiment import run
from tests.conftest import MakeConfig
from tests.support.processes import ended, forked, until

# Where the first run is met: it has the folder and has written nothing; it is about to write down
# what it is; it has trained.
PLACES = ("log_to", "begin", "leave")
WAYS = ((), ("overwrite=true",), ("resume=auto",))


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file, and when it was last written; not the lock, which says nothing."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


class First:
    """The first run, in a process of its own, which waits at a place until it may go on."""

    def __init__(self, config: Config, place: str, folder: Path) -> None:
        self.errors, self.there, self.go = (folder / n for n in ("errors.txt", "there", "go"))
        original = getattr(experiment, place)

        def wait(*arguments: Any, **named: Any) -> Any:
            self.there.touch()
            until(self.go.exists)
            return original(*arguments, **named)

        def task() -> None:
            setattr(experiment, place, wait)  # of the other process
            run(config)

        self.process = forked(task, self.errors)
        until(lambda: self.there.exists() or self.errors.exists())

    def end(self) -> None:
        """Let it go on; it must end well."""
        self.go.touch()
        status = ended(self.process)
        assert status == 0, self.errors.read_text()


@pytest.fixture
def before_claim(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something happen just before a run of this process claims its folder."""
    claim = experiment.claim_run_dir

    def plan(event: Callable[[], object]) -> None:
        parent = os.getpid()

        def late(*arguments: Any, **named: Any) -> Path:
            if os.getpid() == parent:
                event()
            return claim(*arguments, **named)

        monkeypatch.setattr(experiment, "claim_run_dir", late)

    return plan


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("place", PLACES)
def test_a_fresh_folder_that_another_run_takes_meanwhile(
    toy: MakeConfig,
    tmp_path: Path,
    before_claim: Callable[[Callable[[], object]], None],
    place: str,
    way: tuple[str, ...],
) -> None:
    """Both found no folder; the second one comes to it when the first one has it."""
    runs: list[First] = []
    before: list[Any] = []

    def first() -> None:
        runs.append(First(toy("masked"), place, tmp_path))
        before.append(content(tmp_path / "run"))

    before_claim(first)
    with pytest.raises(ConfigError, match="another process is running in") as caught:
        run(toy("masked", *way))
    [problem] = caught.value.problems
    assert problem.where == "run_dir"
    assert [content(tmp_path / "run")] == before
    runs[0].end()
    assert (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_folder_that_another_run_has_already(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: tuple[str, ...]
) -> None:
    monkeypatch.setattr(experiment, "SAVING_SECONDS", 0.1)
    first = First(toy("masked"), "log_to", tmp_path)
    before = content(tmp_path / "run")
    with pytest.raises(ConfigError, match="another process is running in"):
        run(toy("masked", *way))
    assert content(tmp_path / "run") == before
    first.end()


@pytest.mark.parametrize("way", [(), ("resume=auto",)], ids=str)
def test_what_another_run_has_come_to_meanwhile_is_kept(
    toy: MakeConfig,
    tmp_path: Path,
    before_claim: Callable[[Callable[[], object]], None],
    way: tuple[str, ...],
) -> None:
    """Both found no folder; the second one comes to it when the first one is over."""
    before: list[Any] = []

    def whole() -> None:
        assert ended(forked(lambda: run(toy("masked")), tmp_path / "errors.txt")) == 0
        before.append(content(tmp_path / "run"))

    before_claim(whole)
    with pytest.raises(ConfigError, match="another run has begun in"):
        run(toy("masked", *way))
    assert [content(tmp_path / "run")] == before
    assert (tmp_path / "run" / "metrics.json").exists()
