"""Tokens of a set, made once for each text, tokenizer and template, and kept on disk.

An entry is one file, `<key>.arrow`: an Arrow stream, and behind its end the key and the stream's
checksum. It is built under another name and renamed when complete, and its checksum is verified
whenever it is opened.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lpt.data.packing import PackedTokens
from lpt.data.templates import Encoder
from lpt.files import checksum

if TYPE_CHECKING:
    from datasets import Dataset, Features

logger = logging.getLogger(__name__)
WORTH_KEEPING = 2000  # examples; fewer are tokenized faster than they are found
_UNFINISHED = ".unfinished-"
_BATCH = 1000
_KEY_BYTES = 64  # a SHA-256 in hexadecimal digits
_SEAL_BYTES = _KEY_BYTES + 16


def tokenize(
    encoder: Encoder, columns: Mapping[str, Sequence[str]], folder: Path | None
) -> PackedTokens:
    """The tokens of a set.

    Args:
        encoder: Renders and tokenizes.
        columns: The texts; those that the template does not use are passed over.
        folder: Where the tokens of larger sets are kept; None: nowhere.
    """
    used = {name: list(columns[name]) for name in encoder.template.columns}
    count = len(next(iter(used.values())))
    if folder is None or count < WORTH_KEEPING:
        return PackedTokens(encoder.encode(used), encoder.pad_id)
    file = folder / f"{_key(encoder, used)}.arrow"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file.exists():
            try:
                return _read(file, count, encoder.pad_id)
            except (OSError, ValueError, pa.ArrowException) as error:
                logger.warning("Tokens in %s are made anew: %s", file, error)
        return _make(encoder, used, file)
    except OSError as error:
        logger.warning("Tokens cannot be kept in %s: %s", folder, error)
        return PackedTokens(encoder.encode(used), encoder.pad_id)


def problem(file: Path) -> str | None:
    """Why the tokens in a file cannot be used; None for a sound one."""
    try:
        size = file.stat().st_size - _SEAL_BYTES
        with file.open("rb") as handle:
            handle.seek(max(size, 0))
            seal = handle.read(_SEAL_BYTES)
        if seal[:_KEY_BYTES] != file.stem.encode():
            return "its end is not there, or that of another file"
        if seal != _seal(file, size):
            return "its checksum is wrong"
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    return None


def kept(folder: Path) -> list[Path]:
    """The files with tokens, the last made first."""
    found = []
    for file in folder.glob("*.arrow"):
        with suppress(FileNotFoundError):  # removed meanwhile
            found.append((-file.stat().st_mtime, file))
    return [file for _, file in sorted(found)]


def clear(folder: Path) -> int:
    """Remove all of them and what interrupted runs left; returns how many sets."""
    count = len(kept(folder))
    for path in folder.glob("*"):  # unfinished ones, too
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return count


def _key(encoder: Encoder, columns: Mapping[str, Sequence[str]]) -> str:
    key = hashlib.sha256(encoder.fingerprint().encode())
    for name, texts in columns.items():
        key.update(json.dumps([name, len(texts)]).encode())
        for text in texts:
            key.update(json.dumps(text).encode())
    return key.hexdigest()


def _seal(file: Path, size: int) -> bytes:
    """What stands behind the first bytes: also the key, for a file may be given another's name."""
    return f"{file.stem}{checksum(file, size)}".encode()


def _read(file: Path, count: int, pad_id: int) -> PackedTokens:
    """The tokens in a file.

    Raises:
        ValueError: They are not what was written.
        OSError: They cannot be read.
    """
    damage = problem(file)
    if damage:
        raise ValueError(damage)
    with pa.memory_map(str(file)) as source:
        table = pa.ipc.open_stream(source).read_all()
        if not table.schema.equals(_features().arrow_schema) or len(table) != count:
            raise ValueError("its table is another one")
        return _packed(table, pad_id)


def _make(encoder: Encoder, columns: Mapping[str, Sequence[str]], file: Path) -> PackedTokens:
    """Tokenize, and keep what was made.

    Raises:
        OSError: It cannot be written; nothing is left.
    """
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=file.parent) as folder:
        unfinished = Path(folder) / file.name
        packed = _packed(_tokenized(encoder, columns, unfinished).data.table, encoder.pad_id)
        # Not synced: whatever a power cut leaves, its checksum tells.
        with unfinished.open("ab") as handle:
            handle.write(_seal(unfinished, handle.tell()))
        unfinished.replace(file)
    return packed


def _features() -> Features:
    from datasets import Features, List, Value

    return Features(
        {
            "ids": List(Value("int32")),
            "lengths": List(Value("int64")),
            "mask_at": Value("int64"),
            "truncated": Value("int64"),
        }
    )


def _tokenized(encoder: Encoder, columns: Mapping[str, Sequence[str]], file: Path) -> Dataset:
    from datasets import Dataset, disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    return Dataset.from_dict(dict(columns)).map(
        lambda batch: _rows(encoder, batch),
        batched=True,
        batch_size=_BATCH,
        remove_columns=list(columns),
        features=_features(),
        new_fingerprint=file.stem,
        cache_file_name=str(file),
        desc="tokens",
    )


def _rows(encoder: Encoder, batch: Mapping[str, Sequence[str]]) -> dict[str, list[Any]]:
    """Of each example its pieces in one row, as `PackedTokens` lays them out."""
    encoded = encoder.encode(batch)
    endings = encoded.endings or [[] for _ in encoded.context]
    pieces = [[of, *ends] for of, ends in zip(encoded.context, endings, strict=True)]
    count = len(encoded)
    return {
        "ids": [[token for piece in of for token in piece] for of in pieces],
        "lengths": [[len(piece) for piece in of] for of in pieces],
        "mask_at": encoded.mask_at or [0] * count,
        # Only the sum counts: the first of the batch stands for all of it.
        "truncated": [encoded.truncated, *[0] * (count - 1)],
    }


def _packed(table: pa.Table, pad_id: int) -> PackedTokens:
    table.validate(full=True)

    def flat(name: str) -> np.ndarray:
        values: np.ndarray = table.column(name).combine_chunks().flatten().to_numpy()
        return values.copy()  # not bound to the file

    ids, lengths = flat("ids"), flat("lengths").reshape(len(table), -1)
    mask_at = table.column("mask_at").to_numpy().copy()
    truncated = int(table.column("truncated").to_numpy().sum())
    masked = lengths.shape[1] == 1
    if lengths.min() < 0 or lengths.sum() != len(ids):
        raise ValueError("its lengths are not those of its tokens")
    return PackedTokens.of_arrays(
        ids, lengths, mask_at if masked else mask_at[:0], truncated, pad_id
    )
