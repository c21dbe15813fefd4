"""An interrupted run, once resumed, ends with the results of an uninterrupted one."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import LambdaCallback

from lpt.config.schema import Config
from lpt.errors import CTRL_C, PREEMPTED, ConfigError
from lpt.experiment import run
from tests.conftest import BeforeStep, MakeConfig, toy_overrides
from tests.support.outcomes import assert_same, outcome, weights
from tests.support.problems import problem_of
from tests.support.processes import ended, forked, started

STEPS = ("trainer.max_steps=12", "trainer.eval_every_steps=3")
EPOCHS = (
    *("trainer=epochs", "trainer.max_epochs=3", "trainer.eval_every_epochs=1"),
    *("trainer.max_steps=null", "trainer.eval_every_steps=null"),
)
ACCUMULATED = (*STEPS, "trainer.accumulate_grad_batches=2", "data.num_workers=0")
LENGTHS = {"steps": STEPS, "epochs": EPOCHS, "accumulated": ACCUMULATED}
Start = Callable[..., Config]


@pytest.fixture
def start(toy: MakeConfig, tmp_path: Path) -> Start:
    """A run with every kind of dropout, in a folder of that name."""

    def make(name: str, *overrides: str, model: str = "masked") -> Config:
        rates = ("prompt.dropout=0.2", "model.dropout=above", "seed=5")
        return toy(model, *rates, f"run_dir={tmp_path / name}", *overrides)

    return make


@pytest.fixture
def stopped(start: Start, tmp_path: Path) -> Path:
    """The folder of a run that was interrupted before its end."""
    return interrupted(start("run", *STEPS))


def interrupted(config: Config) -> Path:
    """The folder of a run that was killed when all was trained."""
    run(config)
    run_dir = Path(str(config.run_dir))
    for name in ("metrics.json", "predictions.tsv"):
        (run_dir / name).unlink()
    return run_dir


def forked_run(config: Config) -> int:
    """Exit status of a run in a process of its own."""
    return ended(forked(lambda: run(config), Path(str(config.run_dir)).parent / "errors.txt"))


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# Signals


@pytest.mark.parametrize(
    ("length", "number"),
    [("steps", signal.SIGTERM), ("epochs", signal.SIGUSR1), ("accumulated", signal.SIGTERM)],
)
def test_a_preempted_run_resumes(
    start: Start, tmp_path: Path, before_step: BeforeStep, length: str, number: signal.Signals
) -> None:
    """At step 8 an evaluation is due, which is not skipped."""
    overrides = LENGTHS[length]
    run(start("whole", *overrides))
    config = start("stopped", *overrides, "resume=auto")
    for step in (1, 4, 8):
        before_step(step, lambda: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit) as stopped:
            run(config)
        assert stopped.value.code == PREEMPTED
    run(config)
    assert_same(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, PREEMPTED), (signal.SIGINT, CTRL_C)]
)
def test_a_run_preempted_before_training_exits_at_once(
    start: Start, tmp_path: Path, callbacks: list[Callback], number: signal.Signals, status: int
) -> None:
    before = signal.getsignal(number)
    preempt = LambdaCallback(on_test_batch_start=lambda *_: signal.raise_signal(number))
    callbacks.append(preempt)
    no_scores = f"cache.dir={tmp_path / 'cache'}"  # so that it evaluates before the training
    with pytest.raises(SystemExit) as stopped:
        run(start("run", *STEPS, "resume=auto", no_scores))
    assert stopped.value.code == status
    assert signal.getsignal(number) == before
    assert not (tmp_path / "run" / "checkpoints").exists()
    callbacks.remove(preempt)
    run(start("run", *STEPS, "resume=auto"))
    run(start("whole", *STEPS))
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("length", ["steps", "accumulated"])
def test_ctrl_c_saves_the_step_at_hand(
    *,
    start: Start,
    tmp_path: Path,
    before_step: BeforeStep,
    caplog: pytest.LogCaptureFixture,
    length: str,
) -> None:
    overrides = LENGTHS[length]
    run(start("whole", *overrides))
    config = start("stopped", *overrides, "resume=auto")
    before_step(4, partial(signal.raise_signal, signal.SIGINT))
    with pytest.raises(SystemExit) as stopped:
        run(config)
    assert stopped.value.code == CTRL_C
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    hint = f"Stopped by Ctrl-C. Rerun the same command with resume={tmp_path / 'stopped'} to"
    assert hint in caplog.text
    last = torch.load(tmp_path / "stopped" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 5
    run(config)
    assert_same(tmp_path / "stopped", tmp_path / "whole")


def test_a_second_ctrl_c_stops_at_once(start: Start, before_step: BeforeStep) -> None:
    def twice() -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    before_step(4, twice)
    assert forked_run(start("run", *STEPS)) == CTRL_C


def test_ctrl_c_in_a_terminal_reaches_the_workers_too(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path
) -> None:
    """What is printed into a file has neither tracebacks nor progress bars."""
    long = ("trainer.max_steps=40000", "trainer.eval_every_steps=20", "data.num_workers=1")
    given = toy_overrides(checkpoints, toy_data, "masked", *long, f"run_dir={tmp_path / 'run'}")
    with started(given, tmp_path / "output.txt") as command:
        command.wait_for_evaluation()
        os.killpg(command.process.pid, signal.SIGINT)
        assert command.end() == CTRL_C
    assert "Saved a checkpoint at step" in command.text
    assert f"Rerun the same command with resume={tmp_path / 'run'}" in command.text
    for unwanted in ("Traceback", "it/s", "\x1b["):
        assert unwanted not in command.text


def test_ctrl_c_stays_ignored_where_it_is(start: Start, before_step: BeforeStep) -> None:
    """In the background of a script, and in the jobs of a sweep."""
    before_step(4, partial(signal.raise_signal, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run(start("run", *STEPS)) is not None
    finally:
        signal.signal(signal.SIGINT, before)


# Kills


@pytest.mark.parametrize(
    ("model", "method"),
    [("masked", ()), ("causal", ()), ("masked", ("method=adalora", "prompt.layer=null"))],
)
def test_a_killed_run_resumes(
    start: Start,
    tmp_path: Path,
    before_step: BeforeStep,
    callbacks: list[Callback],
    model: str,
    method: tuple[str, ...],
) -> None:
    assert forked_run(start("whole", *STEPS, *method, model=model)) == 0
    config = start("killed", *STEPS, *method, "resume=auto", model=model)
    for step in (1, 7):
        before_step(step, kill)
        assert forked_run(config) == -signal.SIGKILL
        callbacks.clear()
    assert forked_run(config) == 0
    assert_same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS)
def test_a_run_killed_during_a_write_resumes(
    start: Start, tmp_path: Path, before_step: BeforeStep, callbacks: list[Callback], length: str
) -> None:
    """In the middle of a checkpoint, or of the first smaller file after a step."""
    run(start("whole", *LENGTHS[length]))
    config = start("killed", *LENGTHS[length], "resume=auto")
    for step, size in ((1, 1 << 14), (5, 1 << 10), (7, 1 << 14), (8, 1 << 10), (10, 1 << 14)):
        before_step(step, partial(kill_when_writing, size))
        assert forked_run(config) == -signal.SIGXFSZ, (tmp_path / "errors.txt").read_text()
        if size == 1 << 14:
            assert list((tmp_path / "killed" / "checkpoints").glob("*unfinished*"))
        callbacks.clear()
    assert forked_run(config) == 0
    assert_same(tmp_path / "killed", tmp_path / "whole", in_last=False)


def kill_when_writing(size: int) -> None:
    """Have this process killed when it writes more than that into a file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


# What is resumed


def test_a_run_that_had_stopped_early_is_not_trained_further(start: Start, tmp_path: Path) -> None:
    still = (*STEPS, "trainer.patience=1", "optim.lr=1e-12")
    run(start("whole", *still))
    interrupted(start("run", *still))
    run(start("run", *still, "resume=auto"))
    assert outcome(tmp_path / "whole")["cost"][0] == 6
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.usefixtures("wandb_home")
def test_wandb_continues_its_run(start: Start, tmp_path: Path) -> None:
    tracked = (*STEPS, "logger=[csv,wandb]", "logger.wandb.mode=offline")
    run_dir = interrupted(start("run", *tracked))
    run(start("run", *tracked, "resume=auto"))
    folders = [path.name for path in (run_dir / "wandb").glob("offline-run-*")]
    assert len(folders) == 2
    # offline-run-TIME-ID, and -1 after it for the second run of a second
    assert len({name.split("-")[3] for name in folders}) == 1


def test_the_result_of_a_finished_run_is_printed_again(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(start("run", *STEPS))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("[!.]*")}
    capsys.readouterr()
    assert run(start("run", *STEPS, "resume=auto")) == first
    assert "late prompt" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("[!.]*")}
    assert after == before


@pytest.mark.parametrize("finished", [False, True])
def test_other_data_are_refused(
    *, start: Start, tmp_path: Path, toy_data: Path, finished: bool
) -> None:
    (run if finished else interrupted)(start("run", *STEPS))
    other = tmp_path / "other"
    other.mkdir()
    for file in toy_data.iterdir():
        lines = file.read_text().splitlines()
        (other / file.name).write_text("\n".join(reversed(lines)) + "\n")
    with pytest.raises(ConfigError, match="started on other rows or texts"):
        run(start("run", *STEPS, "resume=auto", f"data.path={other}"))


@pytest.mark.parametrize("finished", [False, True])
def test_the_backbone_itself_is_compared(
    *, start: Start, checkpoints: dict[str, Path], tmp_path: Path, finished: bool
) -> None:
    """Its folder may have moved; weights, config or tokenizer that changed in it are refused."""
    (run if finished else interrupted)(start("run", *STEPS))
    moved = tmp_path / "moved"
    shutil.copytree(checkpoints["masked"], moved)
    again = start("run", *STEPS, "resume=auto", f"model.path={moved}", "model.name=other")
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 0.1}))
    assert "weights or config with the fingerprint" in problem_of(lambda: run(again)).given
    (moved / "config.json").write_text(json.dumps({**config, "transformers_version": "9"}))
    tokenizer = (moved / "tokenizer.json").read_text()
    changed = json.loads(tokenizer)
    changed["normalizer"] = {"type": "Lowercase"}
    (moved / "tokenizer.json").write_text(json.dumps(changed))
    assert "a tokenizer with the fingerprint" in problem_of(lambda: run(again)).given
    (moved / "tokenizer.json").write_text(tokenizer)
    weights_file = moved / "model.safetensors"
    content = weights_file.read_bytes()
    weights_file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "weights or config with the fingerprint" in problem_of(lambda: run(again)).given
    weights_file.write_bytes(content)
    assert run(again) is not None


def test_a_moved_run_resumes_in_its_folder(start: Start, stopped: Path, tmp_path: Path) -> None:
    """Also with other loggers and without the cache."""
    run(start("whole", *STEPS))
    stopped.rename(tmp_path / "moved")
    other = ("cache=off", "logger=[csv,tensorboard]", f"resume={tmp_path / 'moved'}")
    run(start("elsewhere", *STEPS, *other, "run_dir=null"))
    assert outcome(tmp_path / "moved") == outcome(tmp_path / "whole")
    assert not (tmp_path / "elsewhere").exists()


def test_a_truncated_checkpoint_is_ignored(
    start: Start, stopped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run resumes from the best one, an earlier state."""
    before = weights(stopped)
    last = stopped / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1])
    run(start("run", *STEPS, "resume=auto"))
    assert "cannot be read" in caplog.text
    after = weights(stopped)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("resume=auto", "run_dir=null"), "run_dir"),
        (("resume=nowhere", "run_dir=null"), "resume"),
        (("resume=.", "run_dir=elsewhere"), "run_dir"),
        (("resume=auto", "overwrite=true"), "resume"),
    ],
)
def test_resume_is_refused(toy: MakeConfig, overrides: tuple[str, ...], key: str) -> None:
    assert problem_of(lambda: run(toy("masked", *overrides))).where == key
