"""Jobs on this machine, several at a time, each with devices of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue

import torch

from lpt.errors import ConfigError
from lpt.sweep.job import Job, Stop, run_job
from lpt.sweep.process import Forked, start_fresh

logger = logging.getLogger(__name__)
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_THREADS = "OMP_NUM_THREADS"
Place = tuple[str, ...]  # ids of GPUs; none: the CPU


def places(at_a_time: int | None, devices: int, gpus: Sequence[str]) -> list[Place]:
    """Where jobs can run at the same time.

    Args:
        at_a_time: How many; None: one for each group of GPUs, or one on the CPU. Where there are
            more than groups, jobs share GPUs.
        devices: GPUs that a job needs.
        gpus: Ids of those that there are; none: jobs run on the CPU.
    """
    if not gpus:
        return [()] * (at_a_time or 1)
    groups = [tuple(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
    groups = groups or [tuple(gpus)]  # too few: the job says so
    return [groups[i % len(groups)] for i in range(at_a_time or len(groups))]


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use."""
    count = torch.cuda.device_count()
    named = os.environ.get(_VISIBLE)
    return named.split(",")[:count] if named else [str(i) for i in range(count)]


def run_pool(folders: Sequence[Path], at_a_time: int | None) -> None:
    """Run the jobs of these folders, in their order.

    Raises:
        KeyboardInterrupt: It was asked to stop; by then all jobs have ended.
    """
    jobs = [job for job in map(Job.read, folders) if job is not None]  # others: see `one`
    gpus = visible_gpus() if any(job.gpu for job in jobs) else []
    free: SimpleQueue[Place] = SimpleQueue()
    all_places = places(at_a_time, max((job.devices for job in jobs), default=1), gpus)
    for place in all_places:
        free.put(place)
    stop, threads = Stop(), ThreadPoolExecutor(len(all_places))
    # Lightning starts the other ranks of a job by its command line, which a forked one has not.
    alone = {job.folder: job.devices == 1 for job in jobs}

    def one(folder: Path) -> None:
        place = free.get()
        try:
            surroundings = _environment(place, len(all_places))
            device = f"GPU {','.join(place)}" if place else "CPU"
            start = Forked if alone.get(folder) else start_fresh
            run_job(folder, environment=surroundings, device=device, stop=stop, start=start)
        except ConfigError as error:  # its record was damaged meanwhile: the others go on
            logger.error("%s", error)
        finally:
            free.put(place)

    running: list[Future[None]] = []
    try:
        running += [threads.submit(one, folder) for folder in folders]
        _finish(running)
    except BaseException:
        stop.asked.set()
        try:
            wait(running)
        except KeyboardInterrupt:
            stop.at_once.set()
            wait(running)
        raise
    finally:
        threads.shutdown(cancel_futures=True)


def _finish(running: Sequence[Future[None]]) -> None:
    wait(running, return_when=FIRST_EXCEPTION)
    for future in running:
        future.result()


def _environment(place: Place, at_a_time: int) -> Mapping[str, str]:
    environment = {_VISIBLE: ",".join(place)} if place else {}
    if at_a_time > 1 and _THREADS not in os.environ:
        # Threads of several jobs on the same cores would wait for each other.
        environment[_THREADS] = str(max(1, (os.cpu_count() or 1) // at_a_time))
    return environment
