"""Tasks and their data from the command line.

    lpt-data check model=roberta-base task=all data.root=FOLDER
    lpt-data kshot task=sst2,rte data.root=FOLDER data.k=16 data.seed=13,21 --out splits
    lpt-data submission runs/* --out submission

`check` shows the model input of each task and what is wrong with its data; `kshot` writes split
files, against which data.verify checks a run; `submission` writes leaderboard files from finished
runs. check and kshot take the overrides of lpt-train; commas give several values, task=all every
task.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from lpt.config.command_line import config_groups
from lpt.config.compose import compose_grid
from lpt.config.schema import CONF_DIR, Config
from lpt.config.validation import validate
from lpt.errors import USAGE_ERROR, ConfigError, Problems, config_error, literal_text
from lpt.files import write_atomically

_NOT_ALL = ("custom", "reviews")  # not tasks of the literature


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 on success, 1 if the data have problems, 2 if the command has."""
    parser = argparse.ArgumentParser(
        prog="lpt-data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("check", "kshot", "submission"))
    parser.add_argument("arguments", nargs="*", help="overrides, or folders of runs")
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument("--config-dir", type=Path, help="folder of your own config groups")
    options = parser.parse_intermixed_args(arguments)
    given: list[str] = options.arguments
    console = Console()
    try:
        if options.action == "submission":
            return _write_submission(given, options.out or Path("submission"), console)
        if options.action == "kshot":
            keys = {override.partition("=")[0] for override in given}
            defaults = {"data": "data=kshot", "data.extra": "data.extra=false"}
            given = [text for key, text in defaults.items() if key not in keys] + given
            configs = _compose(given, console, options.config_dir)
            return _write_split_files(configs, options.out or Path("splits"), console)
        configs = _compose(given, console, options.config_dir)
        from lpt.cli.check_data import check  # slow to import: invalid overrides are reported first

        return 0 if check(configs, console) else 1
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR


def _compose(overrides: Sequence[str], console: Console, config_dir: Path | None) -> list[Config]:
    """A configuration for each combination of values; with task=all, only of tasks with data."""
    if "task=all" not in overrides:
        return compose_grid(overrides, config_dir)
    names = (name for name in config_groups(CONF_DIR)["task"] if name not in _NOT_ALL)
    every_task = f"task={','.join(names)}"
    configs = compose_grid([every_task if o == "task=all" else o for o in overrides], config_dir)
    available = [config for config in configs if _has_data(config)]
    missing = {c.task.name: None for c in configs if c not in available}
    if missing:
        console.print(literal_text(f"Not under {configs[0].data.root}: {', '.join(missing)}"))
    return available


def _has_data(config: Config) -> bool:
    from lpt.data.sources import find_source  # slow to import

    root = config.data.root
    try:
        return root is None or not Path(root).is_dir() or find_source(config) is not None
    except ConfigError:
        return True  # reported later, together with all other problems


def _write_split_files(configs: Sequence[Config], out: Path, console: Console) -> int:
    """Write a split file for each task, k and seed; returns the exit status."""
    contents: dict[Path, str] = {}
    problems = Problems()
    for config in track(configs, "splits", console=Console(stderr=True)):
        with problems.collect():
            file, content = out / _split_file_name(config), _split(config)
            existing = file.read_text("utf-8") if file.exists() else content
            if contents.get(file, existing) != content:
                hint = "remove it, or use --out"
                raise config_error(str(file), "a different split", "a new file", hint)
            contents[file] = content
    for file, content in contents.items():
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
    message = f"Wrote {len(contents)} split files to {out}; use one with data.verify=FILE."
    console.print(literal_text(message), soft_wrap=True)
    if problems.found:
        listing = ConfigError(problems.found).listing
        sys.stderr.write(f"The other splits could not be sampled:\n{listing}\n")
    return 1 if problems.found or not contents else 0


def _split_file_name(config: Config) -> str:
    data = config.data
    dev = f"-dev{data.dev_k}" if data.dev_k is not None else ""
    return f"{config.task.name}-{data.sampling}-k{data.k}{dev}-seed{data.seed}.json"


def _split(config: Config) -> str:
    """The content of a split file."""
    from lpt.data.split_file import describe_splits
    from lpt.data.splits import read_splits
    from lpt.data.tasks import build_task

    problems = validate(config)
    if config.data.protocol != "kshot":
        problems.add("data.protocol", config.data.protocol, "kshot", "leave it out")
    problems.raise_if_any()
    task = build_task(config, None)
    return describe_splits(read_splits(config, task), task).to_json()


def _write_submission(runs: Sequence[str], out: Path, console: Console) -> int:
    """Write leaderboard files from finished runs; returns the exit status."""
    from lpt.cli.leaderboards import make_submission

    if not runs:
        hint = "lpt-data submission runs/*"
        raise config_error("runs", "none", "folders of finished runs", hint)
    files, unfinished = make_submission(list(map(Path, runs)), out)
    for file in files:
        state = f"from {file.run}" if file.run is not None else f"missing: {file.reason}"
        console.print(literal_text(f"{file.suite} {file.name}: {state}"), soft_wrap=True)
    if unfinished:
        folders = ", ".join(map(str, unfinished))
        console.print(literal_text(f"Not finished: {folders}"), soft_wrap=True)
    missing = sum(file.run is None for file in files)
    incomplete = ": the submission is not complete yet" if missing else ""
    written = f"{len(files) - missing} files written to {out}, {missing} missing{incomplete}."
    console.print(literal_text(written), soft_wrap=True)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
