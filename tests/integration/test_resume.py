"""A run that is killed anywhere and started again ends as if nothing had happened."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lpt.config.schema import Config
from lpt.errors import ConfigError
from lpt.experiment import run
from lpt.training.module import LatePromptModule
from lpt.training.resume import PREEMPTED
from tests.conftest import MakeConfig
from tests.support.outcomes import assert_same, curves, outcome, weights
from tests.support.processes import ended, forked

STEPS = ("trainer.max_steps=12", "trainer.eval_every_steps=3")
EPOCHS = (
    *("trainer=epochs", "trainer.max_epochs=3", "trainer.eval_every_epochs=1"),
    *("trainer.max_steps=null", "trainer.eval_every_steps=null"),
)
ACCUMULATED = (*STEPS, "trainer.accumulate_grad_batches=2", "data.num_workers=0")
LENGTHS = {"steps": STEPS, "epochs": EPOCHS, "accumulated": ACCUMULATED}


def started(config: Config) -> int:
    """Start a run in a process of its own; gives its id."""
    return forked(lambda: run(config), Path(str(config.run_dir)) / "errors.txt")


Begin = Callable[..., Config]


@pytest.fixture
def begin(toy: MakeConfig, tmp_path: Path) -> Begin:
    """A run with every kind of dropout, in a folder of that name."""

    def make(name: str, *overrides: str, model: str = "masked") -> Config:
        where = f"run_dir={tmp_path / name}"
        rates = ("prompt.dropout=0.2", "model.dropout=above", "seed=5")
        return toy(model, *rates, *overrides, where)

    return make


@pytest.mark.parametrize(
    ("length", "number"),
    zip(LENGTHS, (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM), strict=True),
)
def test_a_preempted_run_goes_on(
    begin: Begin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    length: str,
    number: signal.Signals,
) -> None:
    """Asked to go at some steps, at one of which an evaluation is due, it saves its state."""
    overrides = LENGTHS[length]
    run(begin("whole", *overrides))
    config = begin("stopped", *overrides, "resume=auto")
    answer = LatePromptModule.on_before_optimizer_step
    for step in (1, 4, 8):

        def ask(module: LatePromptModule, optimizer: Any, step: int = step) -> None:
            if module.trainer.global_step == step:  # before the next one
                os.kill(os.getpid(), number)
            answer(module, optimizer)

        monkeypatch.setattr(LatePromptModule, "on_before_optimizer_step", ask)
        with pytest.raises(SystemExit) as stopped:
            run(config)
        assert stopped.value.code == PREEMPTED
    monkeypatch.setattr(LatePromptModule, "on_before_optimizer_step", answer)
    run(config)
    assert_same(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_run_that_does_not_train_yet_ends_at_once(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    step = LatePromptModule.validation_step

    def ask(module: LatePromptModule, *arguments: Any) -> None:
        os.kill(os.getpid(), number)
        step(module, *arguments)

    monkeypatch.setattr(LatePromptModule, "validation_step", ask)
    with pytest.raises(SystemExit) as stopped:
        run(begin("run", *STEPS, "resume=auto"))
    assert stopped.value.code == PREEMPTED
    assert signal.getsignal(number) == before
    monkeypatch.setattr(LatePromptModule, "validation_step", step)
    run(begin("run", *STEPS, "resume=auto"))
    run(begin("whole", *STEPS))
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_a_run_that_had_stopped_early_does_not_go_on(begin: Begin, tmp_path: Path) -> None:
    still = (*STEPS, "trainer.patience=1", "optim.lr=1e-12")
    run(begin("whole", *still))
    run(begin("run", *still))
    for name in ("metrics.json", "predictions.tsv"):
        (tmp_path / "run" / name).unlink()
    run(begin("run", *still, "resume=auto"))
    assert outcome(tmp_path / "whole")["speed"][0] == 6
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_the_tracker_goes_on_with_its_run(begin: Begin, tmp_path: Path) -> None:
    tracked = (*STEPS, "logger=[csv,wandb]", "logger.wandb.mode=offline")
    run(begin("run", *tracked))
    for name in ("metrics.json", "predictions.tsv"):
        (tmp_path / "run" / name).unlink()
    run(begin("run", *tracked, "resume=auto"))
    folders = [path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*")]
    assert len({name.rpartition("-")[2] for name in folders}) == 1


def killed_at_random(begin: Begin, tmp_path: Path, kills: int, *overrides: str, model: str) -> int:
    """Kill a run at random moments until it has been killed that often; then let it end."""
    start = time.monotonic()
    assert ended(started(begin("whole", *overrides, model=model))) == 0
    whole = time.monotonic() - start
    config = begin("killed", *overrides, "resume=auto", model=model)
    chance, done = random.Random(7), 0
    while done < kills:
        child = started(config)
        time.sleep(chance.uniform(0.05, whole))
        os.kill(child, signal.SIGKILL)
        if ended(child) == 0:  # it was faster
            break
        done += 1
    assert ended(started(config)) == 0, (tmp_path / "killed" / "errors.txt").read_text()
    assert_same(tmp_path / "killed", tmp_path / "whole")
    return done


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_a_killed_run_goes_on(begin: Begin, tmp_path: Path, model: str) -> None:
    assert killed_at_random(begin, tmp_path, 3, *STEPS, model=model)


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS)
def test_a_run_killed_at_twenty_moments_goes_on(begin: Begin, tmp_path: Path, length: str) -> None:
    kills = 0
    for turn in range(10):
        where = tmp_path / str(turn)
        where.mkdir()

        def there(name: str, *rest: str, model: str = "masked", where: Path = where) -> Config:
            return begin(f"{where.name}/{name}", *rest, model=model)

        kills += killed_at_random(there, where, 20 - kills, *LENGTHS[length], model="masked")
        if kills >= 20:
            return
    raise AssertionError(f"only {kills} of 20 kills met a running process")


def test_a_finished_run_is_told_again(begin: Begin, tmp_path: Path) -> None:
    first = run(begin("run", *STEPS))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    again = run(begin("run", *STEPS, "resume=auto"))
    assert json.loads(json.dumps(first)) == again
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def stopped_half_way(begin: Begin, tmp_path: Path) -> Path:
    """A run without its end, as one that was killed before test."""
    run(begin("run", *STEPS))
    for name in ("metrics.json", "predictions.tsv"):
        (tmp_path / "run" / name).unlink()
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("optim.lr=0.5", "optim.lr"),
        ("seed=6", "seed"),
        ("trainer.max_steps=24", "trainer.max_steps"),
        ("prompt.layer=2", "prompt.layer"),
    ],
)
def test_other_settings_are_refused(begin: Begin, tmp_path: Path, override: str, key: str) -> None:
    stopped_half_way(begin, tmp_path)
    with pytest.raises(ConfigError) as caught:
        run(begin("run", *STEPS, "resume=auto", override))
    [problem] = caught.value.problems
    assert problem.where == key
    assert "begun with" in problem.given


def test_other_data_are_refused(begin: Begin, tmp_path: Path, toy_data: Path) -> None:
    stopped_half_way(begin, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    for file in toy_data.iterdir():
        lines = file.read_text().splitlines()
        (other / file.name).write_text("\n".join(reversed(lines)) + "\n")
    with pytest.raises(ConfigError, match="begun on other rows or texts"):
        run(begin("run", *STEPS, "resume=auto", f"data.path={other}"))


def test_logging_and_caching_may_differ(begin: Begin, tmp_path: Path) -> None:
    run(begin("whole", *STEPS))
    stopped_half_way(begin, tmp_path)
    run(begin("run", *STEPS, "resume=auto", "cache=off", "logger=[csv,tensorboard]"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_checkpoint_is_passed_over(
    begin: Begin, tmp_path: Path, tenth: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The best one is whole, and an earlier state of the same run."""
    if tenth == 0:
        run(begin("whole", *STEPS))
    run_dir = stopped_half_way(begin, tmp_path)
    before = weights(run_dir)
    last = run_dir / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    last.write_bytes(content[: len(content) * tenth // 10])
    run(begin("run", *STEPS, "resume=auto"))
    assert "cannot be read" in caplog.text
    after = weights(run_dir)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_without_a_whole_checkpoint_it_says_what_to_do(begin: Begin, tmp_path: Path) -> None:
    run_dir = stopped_half_way(begin, tmp_path)
    for file in (run_dir / "checkpoints").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ConfigError, match="checkpoints to start anew") as caught:
        run(begin("run", *STEPS, "resume=auto"))
    assert caught.value.problems[0].where == "resume"


def test_a_torn_line_of_the_curves_is_left_out(begin: Begin, tmp_path: Path) -> None:
    run(begin("whole", *STEPS))
    run_dir = stopped_half_way(begin, tmp_path)
    with (run_dir / "csv" / "metrics.csv").open("a") as file:
        file.write("0.41,,1")
    run(begin("run", *STEPS, "resume=auto"))
    assert curves(run_dir) == curves(tmp_path / "whole")


@pytest.mark.parametrize(
    "content", [b"step,a\r\n1,\xff\r\n", b"step,a\r\n1\r\n", b"a\r\n1\r\n", b'step\r\n"1"x\r\n']
)
def test_damaged_curves_are_kept_aside(
    begin: Begin, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    run(begin("whole", *STEPS))
    run_dir = stopped_half_way(begin, tmp_path)
    file = run_dir / "csv" / "metrics.csv"
    file.write_bytes(content)
    run(begin("run", *STEPS, "resume=auto"))
    assert f"{file} is damaged" in caplog.text
    assert file.with_name("metrics-damaged.csv").read_bytes() == content
    assert_same(run_dir, tmp_path / "whole", in_curves=False)


def test_nothing_to_go_on_with_is_a_new_run(begin: Begin, tmp_path: Path) -> None:
    metrics = run(begin("new", *STEPS, "resume=auto"))
    assert metrics is not None
    assert (tmp_path / "new" / "metrics.json").exists()


def test_a_moved_run_goes_on_by_its_folder(begin: Begin, tmp_path: Path) -> None:
    run(begin("whole", *STEPS))
    run_dir = stopped_half_way(begin, tmp_path)
    run_dir.rename(tmp_path / "moved")
    config = begin("elsewhere", *STEPS, f"resume={tmp_path / 'moved'}")
    run(dataclasses.replace(config, run_dir=None))
    assert outcome(tmp_path / "moved") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("resume=auto", "run_dir=null"), "run_dir"),
        (("resume=nowhere", "run_dir=null"), "resume"),
        (("resume=.", "run_dir=elsewhere"), "run_dir"),
        (("resume=auto", "overwrite=true"), "resume"),
    ],
)
def test_what_cannot_be_resumed_is_told(
    toy: MakeConfig, overrides: tuple[str, ...], key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        run(toy("masked", *overrides))
    assert [problem.where for problem in caught.value.problems] == [key]
