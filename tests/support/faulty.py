"""train.py, one rank of which meets with something: FAULT="RANK WHERE WHAT"; see WHERE and WHAT."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
TIMES = 3  # that a method is called before it happens


def _raise() -> None:
    raise ValueError("a fault of one rank")


def kill_wandb() -> None:
    """Kill the service of W&B, a child of this process."""
    killed = 0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"wandb" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
                killed += 1
    assert killed


# Who else runs, if anyone does, is in the same process group: what a cluster sends, all are sent.
WHAT: dict[str, Callable[[], Any]] = {
    "raise": _raise,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "kill-all": lambda: os.killpg(0, signal.SIGKILL),
    "ask": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "ask-all": lambda: os.killpg(0, signal.SIGTERM),
    "kill-wandb": kill_wandb,
    "nan": lambda: float("nan"),
    "nothing": lambda: None,
}


def meet(where: str, what: str) -> None:
    """Have it happen in a method, the fourth time that it is called."""
    from lpt.caching.precompute import HiddenStatePrecomputer
    from lpt.methods.late_prompt import Batch, LabelScorer
    from lpt.training.module import LatePromptModule

    classes: dict[str, type[Any]] = {
        "training_step": LatePromptModule,
        "validation_step": LatePromptModule,
        "predict_step": HiddenStatePrecomputer,
        "loss": LabelScorer,
        "on_train_end": LatePromptModule,
    }
    owner = classes[where]
    method, calls = getattr(owner, where), 0

    def faulty(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        given = None
        if calls == TIMES + 1:
            sys.stderr.write(f"\nmet at {time.time()}\n")
            for batch in (given for given in arguments if isinstance(given, Batch)):
                sys.stderr.write(f"met with rows {', '.join(map(str, batch.row_ids.tolist()))}.\n")
            given = WHAT[what]()
        found = method(*arguments, **more)
        return found * given if given is not None else found

    setattr(owner, where, faulty)


if __name__ == "__main__":
    sys.path[0] = str(TRAIN.parent)
    rank, *fault = os.environ.get("FAULT", "none").split()
    if rank == os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")):
        meet(*fault)
    # As the main program, whose name Lightning starts the other ranks by.
    __file__ = str(TRAIN)
    exec(compile(TRAIN.read_text(), TRAIN, "exec"))
