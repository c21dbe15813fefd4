"""Jobs on this machine, several at a time, each with its own devices."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import torch

from lpt.runs.job_record import JobRecord
from lpt.sweep.jobs import POLL_SECONDS, Job
from lpt.sweep.process import Start, deferred_signals, start_process

_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_THREADS = "OMP_NUM_THREADS"

Slot = tuple[str, ...]
"""Ids of the GPUs that one job at a time runs on; empty: the CPU."""


def slots(jobs: int | None, devices: int, gpus: Sequence[str]) -> list[Slot]:
    """The slots of jobs that run at the same time.

    Args:
        jobs: Number of slots; None: one per group of GPUs, or one on the CPU. More slots than
            groups share GPUs.
        devices: GPUs that each job needs.
        gpus: Ids of the GPUs; empty: jobs run on the CPU.
    """
    if not gpus:
        return [()] * (jobs or 1)
    groups = [tuple(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
    groups = groups or [tuple(gpus)]  # fewer than a job needs: its run reports that
    return [groups[i % len(groups)] for i in range(jobs or len(groups))]


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use."""
    count = torch.cuda.device_count()
    ids = os.environ.get(_VISIBLE_DEVICES)
    return ids.split(",")[:count] if ids else [str(i) for i in range(count)]


def run_pool(folders: Sequence[Path], jobs: int | None, *, start: Start = start_process) -> None:
    """Run the jobs in these folders, in their order.

    Args:
        folders: Folders with a job.json each.
        jobs: Number of jobs that run at the same time; None: as many as the devices allow.
        start: Starts the process of a job.

    Raises:
        ConfigError: A job.json is damaged.
        KeyboardInterrupt: The sweep was asked to stop; all jobs have ended by then.
    """
    records = [JobRecord.read(folder) for folder in folders]
    gpus = visible_gpus() if any(record.gpu for record in records) else []
    free = slots(jobs, max((record.devices for record in records), default=1), gpus)
    if len(free) > 1:  # jobs share the cores; libraries read this on import
        os.environ.setdefault(_THREADS, str(max(1, (os.cpu_count() or 1) // len(free))))
    waiting, running = deque(folders), dict[Job, Slot]()
    try:
        with deferred_signals() as signals:
            while running or (waiting and not signals):
                while waiting and free and not signals:
                    slot = free.pop(0)
                    ids = ",".join(slot)
                    environment = {_VISIBLE_DEVICES: ids} if slot else {}
                    device = f"GPU {ids}" if slot else "CPU"
                    folder = waiting.popleft()
                    job = Job(folder, environment=environment, device=device, start=start)
                    running[job] = slot
                for job in running:
                    if signals:  # the second one ends jobs at once
                        job.stop() if len(signals) == 1 else job.kill()
                for job in [job for job in running if job.poll()]:
                    free.append(running.pop(job))
                time.sleep(POLL_SECONDS)
    except Exception:
        for job in running:
            job.stop()
        for job in running:
            job.wait()
        raise
