"""Serve trained adapters over HTTP.

    lpt-serve ADAPTER... [--port 8000]
    curl localhost:8000/predict --json '{"task": "sst2", "row": {"text": "Not bad."}}'

ADAPTER is the folder of a run or of an adapter, or a Hub id; NAME=ADAPTER names its task NAME, for
several adapters of one task. Adapters on the same backbone share it. A folder whose files change is
loaded again. /docs describes the API, /health answers 200 once it is ready.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from lpt.config.extras import check_extra
from lpt.errors import USAGE_ERROR, ConfigError, Problems, config_error

_PORTS = range(1024, 65536)  # that LitServe takes
_HOSTS = ("127.0.0.1", "0.0.0.0", "::")  # noqa: S104  (to choose from)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when it is stopped, 2 if an adapter, the device or the port is wrong."""
    parser = argparse.ArgumentParser(
        prog="lpt-serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("adapters", nargs="+", metavar="ADAPTER", help="folder or Hub id")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--host", choices=_HOSTS, default=_HOSTS[0], help="127.0.0.1: this machine only (default)"
    )
    parser.add_argument("--device", default="cpu", help="as torch names it: cpu, cuda, cuda:1")
    parser.add_argument("--model", help="folder or Hub id of the backbone, if it is elsewhere")
    chosen = parser.parse_args(arguments)
    try:
        sources, columns = _check(chosen)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    from lpt.cli.serve_api import PredictAPI, build_server

    server = build_server(PredictAPI(sources, chosen.device, chosen.model), columns)
    _stop_on_signals()
    sys.stdout.write(f"Loading; then http://{chosen.host}:{chosen.port}/docs describes the API.\n")
    sys.stdout.flush()
    try:
        server.run(chosen.host, chosen.port, log_level="warning", generate_client_file=False)
    except RuntimeError:  # the process of the models has said why
        return USAGE_ERROR
    return 0


def _stop_on_signals() -> None:
    """Let Ctrl-C and SIGTERM end this process, in which LitServe ends those it has started.

    Its HTTP server, a fork, gets the signal again when it has ended by itself.
    """
    process = os.getpid()

    def stop(*_: object) -> None:
        if os.getpid() == process:
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _check(chosen: argparse.Namespace) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Adapters, and the columns of their rows, by task; without loading weights.

    Raises:
        ConfigError: All problems with adapters, device and port.
    """
    problems = Problems()
    with problems.collect():
        _check_port(chosen.host, chosen.port)
    if not check_extra("serve", "lpt-serve", problems):
        problems.raise_if_any()
    from lpt.data.templates import Template
    from lpt.runs.adapter import AdapterDescription, find_adapter_backbone
    from lpt.runs.environment import check_device
    from lpt.runs.find_adapter import find_adapter

    with problems.collect():
        check_device(chosen.device)
    sources: dict[str, str] = {}
    columns: dict[str, tuple[str, ...]] = {}
    for given in chosen.adapters:
        name, source = _named(given)
        with problems.collect():
            folder = find_adapter(source)
            task = AdapterDescription.read(folder).task
            find_adapter_backbone(folder, chosen.model)
            name = name or task.name
            if name in sources:
                found = f"of the task {name}, as {sources[name]}"
                problems.add(source, found, "a name of its own", f"{name}-2={source}")
            sources[name] = source
            columns[name] = tuple(Template.parse(task.template, task.kind).columns)
    problems.raise_if_any()
    return sources, columns


def _named(given: str) -> tuple[str | None, str]:
    """Name and adapter of NAME=ADAPTER; no name for an adapter alone."""
    name, equals, source = given.partition("=")
    return (name, source) if equals and not Path(given).exists() else (None, given)


def _check_port(host: str, port: int) -> None:
    if port not in _PORTS:
        raise config_error("--port", str(port), f"{_PORTS[0]} to {_PORTS[-1]}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise config_error("--port", f"{port}: {error.strerror}", "a free port") from error


if __name__ == "__main__":
    raise SystemExit(main())
