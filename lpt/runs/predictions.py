"""predictions.tsv: the predictions for a set, a line for each example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lpt.errors import config_error
from lpt.files import write_atomically


def predictions_file(name: str) -> str:
    """Name of the file with the predictions for a set."""
    return "predictions.tsv" if name == "test" else f"predictions-{name}.tsv"


def write_predictions(run_dir: Path, name: str, columns: Mapping[str, Sequence[str]]) -> None:
    """Write the predictions for a set, given its columns.

    Raises:
        OSError: The file cannot be written.
    """
    rows = (columns, *zip(*columns.values(), strict=True))
    lines = ["\t".join(map(one_line, row)) for row in rows]
    write_atomically(run_dir / predictions_file(name), "\n".join(lines) + "\n")


def read_predictions(run_dir: Path, name: str) -> list[dict[str, str]]:
    """The lines of the predictions for a set, each with its cells by column.

    Raises:
        ConfigError: There is no such file, or it is not what `write_predictions` wrote.
    """
    file = run_dir / predictions_file(name)
    try:
        text = file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        expected = f"predictions of a finished run for {name}"
        raise config_error(str(file), f"cannot be read: {error}", expected) from error
    head, *lines = (line.split("\t") for line in text.removesuffix("\n").split("\n"))
    for number, cells in enumerate(lines, 2):
        if len(cells) != len(head):
            given = f"{len(cells)} cells"
            raise config_error(f"{file}:{number}", given, f"{len(head)}, as in its first line")
    return [dict(zip(head, cells, strict=True)) for cells in lines]


def one_line(cell: str) -> str:
    """Free text without the tabs and line breaks that would end its cell."""
    return " ".join(cell.split()) if not cell.isprintable() else cell
