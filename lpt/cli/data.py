"""Tasks and their data from the command line.

    python -m lpt.data check model=roberta-base task=all data.root=FOLDER
    python -m lpt.data kshot task=sst2,rte data.root=FOLDER data.k=16 data.seed=13,21 --out splits
    python -m lpt.data submission runs/* --out submission

`check` shows what a model is given of each task and what is wrong with it; `kshot` writes split
files, which data.verify holds a run to; `submission` writes leaderboard files from finished runs.
check and kshot take the overrides of train.py; commas give several values, task=all every task.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from lpt.config.schema import CONF_DIR, Config
from lpt.errors import ConfigError, Problems, config_error, literal_text

_NOT_ALL = ("custom", "reviews")  # no task of the literature


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if all is well, 1 if something is wrong with the data, 2 with the command."""
    parser = argparse.ArgumentParser(
        prog="python -m lpt.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("check", "kshot", "submission"))
    parser.add_argument("arguments", nargs="*", help="overrides, or folders of runs")
    parser.add_argument("--out", type=Path, help="folder to write to")
    chosen = parser.parse_intermixed_args(arguments)
    try:
        if chosen.action == "check":
            return _check(chosen.arguments)
        if chosen.action == "kshot":
            return _kshot(chosen.arguments, chosen.out or Path("splits"))
        return _submission(
            [Path(run) for run in chosen.arguments], chosen.out or Path("submission")
        )
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _check(overrides: Sequence[str]) -> int:
    from lpt.cli.check_data import check  # slow to import: a wrong command line fails before

    console = Console()
    return 0 if check(_present(overrides, console), console) else 1


def _kshot(overrides: Sequence[str], out: Path) -> int:
    from lpt.config.validation import validate
    from lpt.data.build import build_task, read_splits
    from lpt.data.split_file import describe
    from lpt.files import write_atomically

    given = {override.partition("=")[0] for override in overrides}
    kshot = [o for o in ("data=kshot", "data.extra=false") if o.partition("=")[0] not in given]
    console, errors, problems = Console(), Console(stderr=True), Problems()
    written: dict[Path, str] = {}
    for config in track(_present([*kshot, *overrides], console), "splits", console=errors):
        data = config.data
        with problems.collect():
            faults = validate(config)
            if data.protocol != "kshot":
                faults.add("data.protocol", data.protocol, "kshot", "leave it out")
            faults.raise_if_any()
            task = build_task(config, None)
            text = json.dumps(describe(read_splits(config, task), task)) + "\n"
            dev = f"-dev{data.dev_k}" if data.dev_k is not None else ""
            file = out / f"{task.name}-{data.sampling}-k{data.k}{dev}-seed{data.seed}.json"
            before = written.get(file, file.read_text("utf-8") if file.exists() else text)
            if before != text:
                raise config_error(
                    str(file), "another split", "a new file", "remove it, or use --out"
                )
            written[file] = text
    for file, text in written.items():
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text)
    told = f"{len(written)} split files in {out}; hold a run to one with data.verify=FILE"
    console.print(literal_text(told), soft_wrap=True)
    if problems.found:
        sys.stderr.write(f"The others could not be drawn:\n{ConfigError(problems.found).listing}\n")
    return 1 if problems.found or not written else 0


def _present(overrides: Sequence[str], console: Console) -> list[Config]:
    """A configuration for each combination; with task=all, only of tasks that have data."""
    from lpt.data.build import find_source

    configs = compose_all(overrides)
    if "task=all" not in overrides:
        return configs
    absent: dict[str, None] = {}
    present = []
    for config in configs:
        try:
            # What is wrong with the data is told later, with all the rest.
            root = config.data.root
            there = root is None or not Path(root).is_dir() or find_source(config) is not None
        except ConfigError:
            there = True
        if there:
            present.append(config)
        else:
            absent[config.task.name] = None
    if absent:
        console.print(literal_text(f"Not under {configs[0].data.root}: {', '.join(absent)}"))
    return present


def _submission(runs: Sequence[Path], out: Path) -> int:
    from lpt.cli.leaderboards import make_submission

    if not runs:
        raise config_error(
            "runs", "none", "folders of finished runs", "python -m lpt.data submission runs/*"
        )
    made, skipped = make_submission(runs, out)
    table = Table(title=literal_text(f"leaderboard files in {out}", "table.title"))
    for name in ("suite", "file", "from", "missing because"):
        table.add_column(name, overflow="fold")
    for entry in made:
        row = (entry.suite, entry.file, entry.run or "", entry.why_not)
        table.add_row(*map(literal_text, row))
    console = Console()
    console.print(table)
    if skipped:
        console.print(literal_text(f"No finished runs: {', '.join(map(str, skipped))}"))
    missing = sum(entry.run is None for entry in made)
    incomplete = ": not yet a complete submission" if missing else ""
    console.print(f"{len(made) - missing} files written, {missing} missing{incomplete}.")
    return 0 if made and not missing else 1


def compose_all(overrides: Sequence[str]) -> list[Config]:
    """One configuration for each combination of the overrides' values.

    Raises:
        ConfigError: Something is wrong with the overrides.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from lpt.config.command_line import check_overrides
    from lpt.config.schema import register, typed

    register()
    names = sorted(f.stem for f in (CONF_DIR / "task").glob("*.yaml") if f.stem not in _NOT_ALL)
    given = [f"task={','.join(names)}" if o == "task=all" else o for o in overrides]
    check_overrides(given, CONF_DIR)
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [str(o.input_line)]
        for o in OverridesParser.create().parse_overrides(list(given))
    ]
    try:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            return [
                typed(compose("train", overrides=list(combination)))
                for combination in itertools.product(*choices)
            ]
    except HydraException as error:
        raise config_error(
            " ".join(given), str(error).splitlines()[0], "overrides as for train.py"
        ) from error


if __name__ == "__main__":
    raise SystemExit(main())
