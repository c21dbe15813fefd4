"""Requests a second of lpt-serve: one client, and several at a time.

    python -m bench.serve ADAPTER... [--requests 2000] [--clients 32]

Each client sends its next request when it has the answer to the last one; the requests ask for the
adapters in turn, with rows of 5 to 30 words. The server runs on this machine, too.
"""

from __future__ import annotations

import argparse
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx

_STARTING_S = 300
_WORDS = [
    "the",
    "a",
    "film",
    "story",
    "cast",
    "plot",
    "scene",
    "is",
    "was",
    "not",
    "good",
    "bad",
    "long",
    "short",
    "and",
    "but",
    "with",
    "of",
]
Question = Mapping[str, Any]


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """The URL of a server with these arguments, which is ready; it ends with the block."""
    port = free_port()
    command = [sys.executable, "-m", "lpt.cli.serve", *arguments, "--port", str(port)]
    process = subprocess.Popen(command)  # noqa: S603
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _STARTING_S
        while not _is_ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def ask(
    url: str, questions: Sequence[Question], clients: int
) -> tuple[list[httpx.Response], list[float]]:
    """The answers to questions, in order, and the seconds that each took."""
    limits = httpx.Limits(max_connections=clients)
    with httpx.Client(timeout=None, limits=limits) as client:  # noqa: S113  (none is lost)

        def one(question: Question) -> tuple[httpx.Response, float]:
            start = time.perf_counter()
            return client.post(f"{url}/predict", json=question), time.perf_counter() - start

        with ThreadPoolExecutor(clients) as threads:
            answers, seconds = zip(*threads.map(one, questions), strict=True)
    return list(answers), list(seconds)


def questions_for(url: str, count: int) -> list[Question]:
    """Rows of random words for the tasks in turn, whose columns the server's API page lists."""
    description = httpx.get(f"{url}/openapi.json").json()["info"]["description"]
    lines = [line[3:].split("`: ") for line in description.splitlines() if line.startswith("* `")]
    columns = {task: names.split(", ") for task, names in lines}
    words = random.Random(0)  # noqa: S311

    def row(task: str) -> dict[str, str]:
        return {
            name: " ".join(words.choices(_WORDS, k=words.randint(5, 30))) for name in columns[task]
        }

    tasks = list(columns)
    return [{"task": (task := tasks[i % len(tasks)]), "row": row(task)} for i in range(count)]


def main() -> None:
    """Print a line for one client and for several."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=__doc__)
    parser.add_argument("adapters", nargs="+")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    chosen = parser.parse_args()
    with serving(*chosen.adapters) as url:
        questions = questions_for(url, chosen.requests)
        ask(url, questions[:50], 2)
        for clients in (1, chosen.clients):
            asked = questions if clients > 1 else questions[: chosen.requests // 5]
            start = time.perf_counter()
            answers, seconds = ask(url, asked, clients)
            rate = len(asked) / (time.perf_counter() - start)
            lost = sum(answer.status_code != httpx.codes.OK for answer in answers)
            median, slow = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
            print(
                f"{clients} clients: {rate:.0f} requests/s, median {1000 * median:.0f} ms, "
                f"95 % within {1000 * slow:.0f} ms, {lost} of {len(asked)} lost"
            )


if __name__ == "__main__":
    main()
