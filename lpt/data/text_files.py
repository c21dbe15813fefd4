"""Lines of UTF-8 text files; first bytes tell other encodings and compressed files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

from lpt.errors import ConfigError, config_error

_UTF16 = "UTF-16 text", "iconv -f utf-16 -t utf-8 {name} > new_{name}"
_HTML = "an HTML page", "download the file itself"
_FIRST_BYTES = {
    b"\xff\xfe\x00\x00": ("UTF-32 text", "iconv -f utf-32 -t utf-8 {name} > new_{name}"),
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
    b"\x1f\x8b": ("a gzip file", "decompress it: gzip -dc {name} > new_{name}"),
    b"BZh": ("a bzip2 file", "decompress it: bzip2 -dc {name} > new_{name}"),
    b"\xfd7zXZ": ("an xz file", "decompress it: xz -dc {name} > new_{name}"),
    b"\x28\xb5\x2f\xfd": ("a zstd file", "decompress it: zstd -dc {name} > new_{name}"),
    b"PK\x03\x04": ("a zip file", "unzip it; a spreadsheet: save it as CSV UTF-8"),
    b"\xd0\xcf\x11\xe0": ("an Excel file", "save it as CSV UTF-8"),
    b"PAR1": ("a parquet file", "name it {stem}.parquet"),
    b"version https://git-lfs": ("a Git LFS pointer", "fetch the file itself: git lfs pull"),
    b"<!DOCTYPE": _HTML,
    b"<!doctype": _HTML,
    b"<html": _HTML,
}


def read_lines(path: Path, stream: BinaryIO | None = None) -> Iterator[tuple[int, str]]:
    """Numbered lines with their line ends.

    Args:
        path: The file; with a stream, its name for messages.
        stream: Lines at hand, instead of those of the file.

    Raises:
        ConfigError: The file is compressed or not UTF-8.
        OSError: It cannot be read.
    """
    with path.open("rb") if stream is None else nullcontext(stream) as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                kind = f", as {path.suffix} files are" if path.suffix else ""
                _check_first_bytes(path, raw, f"UTF-8 text{kind}")
                if stream is None:
                    _check_line_ends(path, raw)
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, raw, error.start) from error
            yield number, line


def check_parquet(path: Path) -> None:
    """Refuse a file whose first bytes tell that it is of another kind.

    Raises:
        ConfigError: What it is, and what to do.
    """
    with path.open("rb") as file:
        raw = file.read(max(map(len, _FIRST_BYTES)))
    if not raw.startswith(b"PAR1"):
        _check_first_bytes(path, raw, "a parquet file")


def _check_first_bytes(path: Path, raw: bytes, expected: str) -> None:
    kinds = [kind for start, kind in _FIRST_BYTES.items() if raw.startswith(start)]
    if not kinds and b"\0" in raw:
        kinds = [_kind_with_nul(raw)]
    for found, hint in kinds[:1]:
        raise config_error(str(path), found, expected, hint.format(name=path.name, stem=path.stem))


def _kind_with_nul(raw: bytes) -> tuple[str, str]:
    """UTF-16 without a byte-order mark has its zeros on one side of the letters."""
    even, odd = raw[::2].count(0), raw[1::2].count(0)
    if max(even, odd) < 4 * min(even, odd):
        return "NUL bytes: a binary or damaged file", "write it again as UTF-8 text"
    order = "le" if odd > even else "be"
    return "UTF-16 text", f"iconv -f utf-16{order} -t utf-8 {{name}} > new_{{name}}"


def _check_line_ends(path: Path, raw: bytes) -> None:
    """Refuse a file that is a single line to all but old Macs."""
    if b"\r" in raw.rstrip(b"\r\n") and len(raw) == path.stat().st_size:
        hint = f"tr '\\r' '\\n' < {path.name} > new_{path.name}"
        raise config_error(str(path), "lines that end in CR only", "lines that end in LF", hint)


def _not_utf8(path: Path, number: int, raw: bytes, start: int) -> ConfigError:
    try:
        raw.decode("cp1252")
        hint = f"Windows text of Western Europe: iconv -f cp1252 -t utf-8 {path.name}"
        hint += "; text of other languages has another encoding: cp1251, gb18030, shift-jis"
    except UnicodeDecodeError:
        hint = f"iconv -f ENCODING -t utf-8 {path.name}, e.g. cp1251, gb18030, shift-jis"
    given = f"byte 0x{raw[start]:02x} at {start} is not UTF-8"
    return config_error(f"{path}:{number}", given, "UTF-8 text", f"convert the file: {hint}")
