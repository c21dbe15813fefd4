"""Several processes of a run: whoever ends before the others ends them, too, with its reason.

Without that a rank would wait for one that is gone, on GPUs for half an hour. A thread in each rank
watches: the process that started others looks after them, they look whether it is there, and, once
all have met, each has a connection to the first one. Who ends says so there; whose connection is
closed without a word was killed.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import (
    Client,
    Connection,
    Listener,
    answer_challenge,
    deliver_challenge,
    wait,
)
from typing import Any, NamedTuple, Self

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from lpt.errors import PREEMPTED, ConfigError, RunError, killed_by
from lpt.training.distributed import world_size

logger = logging.getLogger(__name__)
_STARTED_BY = "LPT_STARTED_BY"  # id of the process that started this one as another rank
_LOOK_SECONDS = 0.5
_NEWS_SECONDS = 5.0  # that the reason of an error in between ranks may be under way
_HELLO_SECONDS = 2  # for whoever connects to say who it is
_JOIN_SECONDS = 60  # to be let in by the first rank, which strangers may keep waiting
_END_SECONDS = 20.0  # for the others to end by themselves
# Of a machine that has lost its power, the others hear after 30 s.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}


class End(NamedTuple):
    """How a rank ended.

    Attributes:
        rank: Whose end it is.
        status: Exit status; 0 where the run is complete.
        reason: What it did, for the user of the run; nothing where another rank tells it.
    """

    rank: int
    status: int
    reason: str

    @classmethod
    def by(cls, rank: int, error: BaseException | None) -> Self:
        """By an exception or, with None, after all was done."""
        if error is None:
            return cls(rank, 0, "")
        if isinstance(error, SystemExit):
            return cls.with_status(rank, error.code if isinstance(error.code, int) else 1)
        told = error if isinstance(error, (RunError, ConfigError)) else repr(error)
        return cls(rank, 1, f"failed: {told}")

    @classmethod
    def with_status(cls, rank: int, status: int) -> Self:
        """By the exit status of its process, negative for a signal."""
        if status < 0:
            return cls(rank, 1, f"was {killed_by(status)}")
        if status == PREEMPTED:
            return cls(rank, status, "was stopped by a signal")
        return cls(rank, status or 1, f"ended before the others, with status {status}")


class Ranks(Callback):
    """Watches over the other ranks within its block, and is a callback of the trainer.

    Another rank's end ends the block, and the process, by `SystemExit`; where that is not to be had
    because the process waits for the other one in vain, it ends all the same.
    """

    def __init__(self) -> None:
        self.rank = 0
        self.parent = int(os.environ.pop(_STARTED_BY, 0))
        self.children: dict[int, subprocess.Popen[Any]] = {}
        self.others: dict[int, Connection] = {}  # the first rank has all, the others have it
        self.met = False
        self.complete: set[int] = set()
        self.end: End | None = None  # another rank's, by which this one ends
        self._known, self._leaving = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.parent:
            self._start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._thread is None:
            return
        if isinstance(error, RuntimeError) and not isinstance(error, RunError):
            self._known.wait(_NEWS_SECONDS)  # it may be of a rank that is gone
        self._leaving.set()
        end = End.by(self.rank, error)
        theirs = self.end if end.status and not isinstance(error, SystemExit) else None
        if error is not None:
            # What libraries do at the exit may wait for other ranks, too.
            status = (theirs or end).status
            last = threading.Timer(2 * _END_SECONDS, os._exit, [status])
            last.daemon = True
            last.start()
        if theirs is None:
            self._say(end)
        self._end_children()
        if theirs is not None:
            self._tell(theirs)
            raise SystemExit(theirs.status) from None

    def watch(self, trainer: Trainer) -> None:
        """Look after the processes that the trainer starts, in place of Lightning.

        Lightning kills all of them, its own process first, and gives no reason.
        """
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            trainer.strategy._launcher = _Launcher(launcher, self)

    def look_after(self, children: dict[int, subprocess.Popen[Any]]) -> None:
        """Watch these processes, by their rank."""
        self.children = children
        self._start()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """When all ranks have met, connect them."""
        if world_size() == 1 or self.met:
            return
        self.met, self.rank = True, trainer.global_rank
        one_node = trainer.num_nodes == 1
        listener: Listener | None = None
        known: Any = None
        if self.rank == 0:
            password = secrets.token_bytes(32)
            listener = Listener(("127.0.0.1" if one_node else "", 0))
            known = (listener.address[1], password)
        port, password = trainer.strategy.broadcast(known)
        if listener is not None:
            arguments = (listener, world_size() - 1, password)
            threading.Thread(target=self._let_in, args=arguments, daemon=True).start()
        else:
            self._join("127.0.0.1" if one_node else os.environ["MASTER_ADDR"], port, password)
        self._start()

    def _let_in(self, listener: Listener, count: int, password: bytes) -> None:
        with listener:
            while len(self.others) < count:
                with suppress(OSError, EOFError, ValueError, AuthenticationError):  # a stranger
                    connection = listener.accept()
                    _wait_at_most(connection, _HELLO_SECONDS)
                    deliver_challenge(connection, password)
                    answer_challenge(connection, password)
                    rank = int(connection.recv_bytes())
                    _wait_at_most(connection, None)
                    _keep_alive(connection)
                    self.others = {**self.others, rank: connection}

    def _join(self, host: str, port: int, password: bytes) -> None:
        try:
            connection = Client((host, port))
            _wait_at_most(connection, _JOIN_SECONDS)
            answer_challenge(connection, password)
            deliver_challenge(connection, password)
            connection.send_bytes(str(self.rank).encode())
            _wait_at_most(connection, None)
            _keep_alive(connection)
        except (OSError, EOFError, AuthenticationError) as error:
            text = "Rank %d cannot reach %s:%d (%s): the end of another rank may go unnoticed."
            logger.error(text, self.rank, host, port, error)
        else:
            self.others = {0: connection}

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._wait, name="ranks", daemon=True)
            self._thread.start()

    def _wait(self) -> None:
        """Wait for the end of another rank, and see to it that this one ends, too."""
        while (end := self._look()) is None:
            if self._leaving.is_set():
                return
        self.end = end
        self._known.set()
        if self.rank == 0:
            self._say(end)
        # The first rank has files to close, if it is not kept from it.
        if self._leaving.wait(_NEWS_SECONDS if self.rank == 0 else _LOOK_SECONDS):
            return
        self._tell(end)
        self._end_children()
        os._exit(end.status)

    def _look(self) -> End | None:
        """The end of another rank, if there is one within a moment."""
        gone = [rank for rank, child in self.children.items() if child.poll() is not None]
        lost = None
        for rank, connection in self._ready().items():
            try:
                end = End(*json.loads(connection.recv_bytes()))
            except (OSError, EOFError):
                lost = self._lost(rank)
            else:
                if end.status:
                    return end._replace(reason="") if self.parent else end
                self.complete.add(rank)
        if lost is not None:
            return lost
        if self.parent and os.getppid() != self.parent:
            return self._lost(0)
        ends = (self._lost(rank) for rank in gone if rank not in self.complete)
        return next(ends, None)

    def _ready(self) -> dict[int, Connection]:
        open_ = {r: other for r, other in self.others.items() if r not in self.complete}
        ready = wait(list(open_.values()), _LOOK_SECONDS)
        return {rank: other for rank, other in open_.items() if other in ready}

    def _lost(self, rank: int) -> End:
        """The end of a rank that said nothing."""
        if (child := self.children.get(rank)) is not None:
            with suppress(subprocess.TimeoutExpired):
                return End.with_status(rank, child.wait(_NEWS_SECONDS))
        return End(rank, 1, "is gone without a word: it was killed, or its machine")

    def _say(self, end: End) -> None:
        for rank, connection in self.others.items():
            if rank != end.rank:
                with suppress(OSError):
                    connection.send_bytes(json.dumps(end).encode())

    def _tell(self, end: End) -> None:
        if end.reason:
            sys.stderr.write("\n")  # after a progress bar
            logger.error("The run ends because rank %d %s", end.rank, end.reason)

    def _end_children(self) -> None:
        deadline = time.monotonic() + _END_SECONDS
        for child in self.children.values():
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


class _Launcher(_SubprocessScriptLauncher):
    """Starts the other ranks of this node, and leaves them to `Ranks`."""

    def __init__(self, given: _SubprocessScriptLauncher, ranks: Ranks) -> None:
        super().__init__(given.cluster_environment, given.num_processes, given.num_nodes)
        self.ranks = ranks

    def launch(
        self,
        function: Callable[..., Any],
        *args: Any,
        trainer: Trainer | None = None,
        **kwargs: Any,
    ) -> Any:
        if not self.cluster_environment.creates_processes_externally:
            first = self.cluster_environment.node_rank() * self.num_processes
            os.environ[_STARTED_BY] = str(os.getpid())
            self._call_children_scripts()
            del os.environ[_STARTED_BY]
            self.ranks.look_after({first + i: child for i, child in enumerate(self.procs, 1)})
        # Started now, they count as started from outside: no other watch is set.
        return super().launch(function, *args, trainer=trainer, **kwargs)


def _wait_at_most(connection: Connection, seconds: int | None) -> None:
    """Have reading from it end with an OSError after some time without a word; None: never."""
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        spell = struct.pack("ll", seconds or 0, 0)
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, spell)


def _keep_alive(connection: Connection) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                same.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
