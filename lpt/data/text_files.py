"""Lines of UTF-8 text files; first bytes tell other encodings and compressed files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lpt.errors import ConfigError, config_error

_UTF16 = "UTF-16 text", "iconv -f utf-16 -t utf-8 {name} > new_{name}"
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
}


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines with their line ends.

    Raises:
        ConfigError: The file is compressed or not UTF-8.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                _check_first_bytes(path, raw)
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, raw, error.start) from error
            yield number, line


def _check_first_bytes(path: Path, raw: bytes) -> None:
    kinds = [kind for start, kind in _FIRST_BYTES.items() if raw.startswith(start)]
    if not kinds and b"\0" in raw[:2]:  # of two bytes per letter, without a byte-order mark
        order = "le" if raw[1:2] == b"\0" else "be"
        kinds = [("UTF-16 text", f"iconv -f utf-16{order} -t utf-8 {{name}} > new_{{name}}")]
    for found, hint in kinds[:1]:
        hint = hint.format(name=path.name, stem=path.stem)
        raise config_error(str(path), found, f"UTF-8 text, as {path.suffix} files are", hint)


def _not_utf8(path: Path, number: int, raw: bytes, start: int) -> ConfigError:
    try:
        raw.decode("cp1252")
        hint = f"Windows text of Western Europe: iconv -f cp1252 -t utf-8 {path.name}"
        hint += "; text of other languages has another encoding: cp1251, gb18030, shift-jis"
    except UnicodeDecodeError:
        hint = f"iconv -f ENCODING -t utf-8 {path.name}, e.g. cp1251, gb18030, shift-jis"
    given = f"byte 0x{raw[start]:02x} at {start} is not UTF-8"
    return config_error(f"{path}:{number}", given, "UTF-8 text", f"convert the file: {hint}")
