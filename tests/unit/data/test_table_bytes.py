"""Any bytes are a table, or refused with the file's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lpt.data.tables import read_table
from lpt.errors import ConfigError
from tests.support.hostile import LONG

Columns = dict[str, list[str | None]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


PIECES = [b"\n", b"\r\n", b"\r", b"\t", b",", b'"', b"{", b"}", b"[", b'"a":', b"null", b"\\ud800"]
PIECES += [b"\xef\xbb\xbf", b"\xff", b"\xc3\xa9", b"\0", b"a", b'{"a": "x"}\n', b"1e999", b"a\tb\n"]
file_bytes = st.binary() | st.lists(st.sampled_from(PIECES) | st.binary(max_size=3)).map(b"".join)


def read_or_refuse(path: Path, header: Sequence[str] | None = None, skip: bool = False) -> None:
    """A table of text whose lines are the file's, or problems of that file and its lines."""
    last = path.read_bytes().count(b"\n") + 1
    try:
        table = read_table(path, header, skip_short_rows=skip)
    except ConfigError as error:
        for problem in error.problems:
            found = re.fullmatch(rf"{re.escape(str(path))}(?::(\d+))?", problem.where)
            assert found
            assert problem.given
            assert "\n" not in problem.given
            assert not found[1] or 1 <= int(found[1]) <= last
            str(problem).encode()
    else:
        assert len(table) > 0
        for values in table.columns.values():
            assert len(values) == len(table)
            assert all(value is None or value.encode() is not None for value in values)
        if path.suffix != ".parquet":
            assert list(table.lines) == sorted({*table.lines})
            assert table.lines[-1] <= last


@example(b"[" * LONG, None, False)
@example(b'{"a": ' + b"9" * LONG + b"}", None, False)
@example(b'{"a": ' * 3000 + b"1" + b"}" * 3000, None, False)
@example(b'a,b\n"' + b"x\n" * LONG, None, False)
@given(file_bytes, st.none() | st.just(["a", "b"]), st.booleans())
@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "parquet"])
def test_any_bytes_are_a_table_or_refused(
    folder: Path, suffix: str, content: bytes, header: list[str] | None, skip: bool
) -> None:
    path = folder / f"any.{suffix}"
    path.write_bytes(content)
    read_or_refuse(path, header, skip)
