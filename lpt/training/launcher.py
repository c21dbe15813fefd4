"""Starts and supervises the ranks of a run on one node, through torch's elastic agent.

That is what torchrun does, too. Ranks started by torchrun or srun are left to those. Either way, a
rank is a process that runs `in_rank`.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lpt.config.schema import Config, StrategyConfig
from lpt.errors import (
    CTRL_C,
    FAILURE,
    PREEMPTED,
    USAGE_ERROR,
    ConfigError,
    RunError,
    config_error,
    killed_by,
)
from lpt.runs.environment import REVISION, source_revision
from lpt.runs.record import RunRecord
from lpt.runs.run_dir import create_run_dir, log_to

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_LAUNCHER = "LPT_LAUNCHER"  # environment variable of the ranks: process id of their launcher
_POLL_SECONDS = 0.5
_SHUTDOWN_SECONDS = "120"  # for the ranks to save a checkpoint when the launcher is signalled
# What a rank reports of another one that is gone.
_LOST_PEER = re.compile(r"(Runtime|Dist\w*)Error: .*(peer|gloo|nccl|store)", re.IGNORECASE)
_R = TypeVar("_R")


def is_rank() -> bool:
    """Whether this process was started as one of several, by an elastic agent or by srun."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def needs_launch(strategy: StrategyConfig) -> bool:
    """Whether this process has to start the ranks.

    Raises:
        ConfigError: Ranks were started from outside, but not as many as configured, or have to be.
    """
    expected = strategy.devices * strategy.num_nodes
    key = "strategy.devices" if strategy.num_nodes == 1 else "strategy.num_nodes"
    if not is_rank() and strategy.num_nodes == 1:
        if expected == 1:
            _check_slurm_tasks()
        return expected > 1
    size = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    started = int(size) if is_rank() else 0
    if started != expected:
        given = f"{expected} ranks in all, but {started} started by torchrun or srun"
        raise config_error(key, given, "devices x nodes ranks", "docs/several-devices.md")
    _check_slurm_tasks()
    return False


def _check_slurm_tasks() -> None:
    """Check that Lightning can tell the ranks from the variables of Slurm."""
    tasks, job = os.environ.get("SLURM_NTASKS", "1"), os.environ.get("SLURM_JOB_NAME")
    others = "LOCAL_RANK" in os.environ or "SLURM_NTASKS_PER_NODE" in os.environ
    if int(tasks) == 1 or others or job in ("bash", "interactive"):  # so Lightning ignores Slurm
        return
    expected = "1 for a single device, or --ntasks-per-node for several, started with srun"
    hint = "change --ntasks in the job script (docs/several-devices.md)"
    raise config_error("SLURM_NTASKS", f"{tasks} without --ntasks-per-node", expected, hint)


def launch_run(config: Config, command: Sequence[str]) -> RunRecord:
    """Run on several devices: start the ranks, and wait for the record of their run.

    Args:
        config: Resolved configuration, without problems.
        command: Arguments of lpt-train that it comes from.

    Raises:
        ConfigError: The ranks cannot be started.
        RunError: A rank died or failed; the others were stopped.
        SystemExit: The run was stopped by a signal.
    """
    if not command:
        given = f"{config.strategy.devices}, with lpt.run"
        raise config_error("strategy.devices", given, "1", "use lpt-train or torchrun")
    if config.run_dir is None:
        run_dir = create_run_dir(config)
        command = [*command, f"run_dir={run_dir}"]
    else:
        run_dir = Path(config.run_dir)
    try:
        _launch_ranks(config.strategy.devices, command)
    except RunError:
        with log_to(run_dir) if run_dir.is_dir() else nullcontext():
            raise
    return RunRecord.read(run_dir)


def _launch_ranks(count: int, arguments: Sequence[str]) -> None:
    """Start ranks on this node and wait for all of them."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, launch_agent

    agent_logger = logging.getLogger("torch.distributed.elastic")  # reported by _explain instead
    agent_logger.addHandler(logging.NullHandler())
    agent_logger.propagate = False
    os.environ[_LAUNCHER] = str(os.getpid())
    os.environ[REVISION] = source_revision()
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _SHUTDOWN_SECONDS)
    # The agent passes SIGTERM on to the ranks.
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, lambda *_: signal.raise_signal(signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="lpt-ranks-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=str(os.getpid()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            launch_agent(config, sys.executable, ["-m", "lpt.cli.train", *arguments])
        except SignalException as stop:
            raise SystemExit(CTRL_C if stop.sigval == signal.SIGINT else PREEMPTED) from None
        except ChildFailedError as error:
            raise _explain(error.failures) from None


def _explain(failures: Mapping[int, ProcessFailure]) -> BaseException:
    """The exception of the rank that ended the run."""

    def order(rank: int) -> tuple[bool, bool, float]:
        failure = failures[rank]
        # The agent stops the other ranks with SIGTERM; those that still can exit with 75.
        stopped = failure.exitcode in (PREEMPTED, -signal.SIGTERM)
        lost_peer = _LOST_PEER.match(_message(failure)) is not None
        try:
            return lost_peer, stopped, os.stat(failure.error_file).st_mtime
        except OSError:  # the agent noticed it at this time, in whole seconds
            return lost_peer, stopped, failure.timestamp - 1

    rank = min(failures, key=order)
    failure = failures[rank]
    kind, _, text = _message(failure).partition(": ")
    if failure.exitcode in (PREEMPTED, -signal.SIGTERM):
        return SystemExit(PREEMPTED)
    if failure.exitcode == USAGE_ERROR and kind == "ConfigError":
        sys.stderr.write(f"{text}\n")
        return SystemExit(USAGE_ERROR)
    if failure.exitcode < 0:
        return RunError(f"Rank {rank} was {killed_by(failure.exitcode)}.")
    if kind == "RunError":
        return RunError(f"Rank {rank}: {text}")
    trace: Any = failure.message
    details = trace["extraInfo"]["py_callstack"] if kind else f"exit status {failure.exitcode}"
    return RunError(f"Rank {rank} failed: {details}")


def _message(failure: ProcessFailure) -> str:
    """`ErrorType: text` of the exception that ended a rank; empty if there was none."""
    message: Any = failure.message  # a dict where the rank wrote an error file
    return message["message"] if isinstance(message, dict) else ""


def in_rank(function: Callable[..., _R]) -> Callable[..., _R]:
    """Wrap the entry point of a process that may be a rank.

    A rank that fails exits at once: what libraries do at exit may wait for the other ranks. The
    elastic agent, ours or torchrun's, reports the error. A rank of `launch_run` also ends with its
    launcher, and takes Ctrl-C for SIGTERM.
    """
    if not is_rank():
        return function
    launcher = os.environ.pop(_LAUNCHER, None)
    if launcher is not None:
        signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))
        threading.Thread(target=_end_with, args=[int(launcher)], daemon=True).start()

    def wrapper(*args: Any) -> _R:
        from torch.distributed.elastic.multiprocessing.errors import record

        try:
            return cast(_R, record(function)(*args))
        except (Exception, SystemExit) as error:
            status = USAGE_ERROR if isinstance(error, ConfigError) else FAILURE
            if isinstance(error, SystemExit):
                status = error.code if isinstance(error.code, int) else FAILURE
            elif "TORCHELASTIC_ERROR_FILE" not in os.environ:  # under srun
                known = isinstance(error, (ConfigError, RunError))
                sys.stderr.write(str(error) if known else traceback.format_exc())
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    return wrapper


def _end_with(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_POLL_SECONDS)
    os._exit(FAILURE)
