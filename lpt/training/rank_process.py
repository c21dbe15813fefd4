"""The process of a rank: it ends with its launcher, and exits at once when it fails."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from lpt.errors import FAILURE, USAGE_ERROR, ConfigError, RunError

LAUNCHER = "LPT_LAUNCHER"
"""Environment variable of the ranks: process id of their launcher."""
_POLL_SECONDS = 0.5
_P = ParamSpec("_P")
_R = TypeVar("_R")


def is_rank() -> bool:
    """Whether this process was started as one of several, by an elastic agent or by srun."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def in_rank(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Wrap the entry point of a process that may be a rank.

    A rank that fails exits at once: what libraries do at exit may wait for the other ranks. The
    elastic agent, ours or torchrun's, reports the error. A rank of `launch_run` also ends with its
    launcher, and takes Ctrl-C for SIGTERM.
    """
    if not is_rank():
        return function
    launcher = os.environ.pop(LAUNCHER, None)
    if launcher is not None:
        signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))
        threading.Thread(target=_end_with, args=[int(launcher)], daemon=True).start()

    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        from torch.distributed.elastic.multiprocessing.errors import record

        try:
            return cast(_R, record(function)(*args, **kwargs))
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
