"""Tokens that are kept: the same as without keeping, and made anew when anything differs."""

from __future__ import annotations

import errno
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest
import torch
from transformers import PreTrainedTokenizerFast
from xxhash import xxh3_64_hexdigest

from lpt.cli.cache import main
from lpt.data import tokens
from lpt.data.packing import PackedTokens
from lpt.data.templates import Encoded, Encoder, Template
from lpt.data.tokens import tokenize
from lpt.files import cache_dir
from tests.support.tokenizers import WORDS, causal, roberta_like, wordpiece
from tests.unit.data.test_templates import random_texts

Kind = Literal["masked", "causal"]
TEMPLATES: dict[Kind, str] = {
    "masked": "{a} ? <mask> , {b} .",
    "causal": "{a} but {b} It was {word} .",
}
MAKE: dict[Kind, Callable[[], PreTrainedTokenizerFast]] = {"masked": wordpiece, "causal": causal}
SIZE = 12
ROOT = Path(__file__).parents[3]
kinds = pytest.mark.parametrize("kind", ["masked", "causal"])


def encoder(
    kind: Kind,
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    template: str | None = None,
    words: Sequence[str] = ("great", "terrible"),
    max_length: int = 40,
) -> Encoder:
    parsed = Template.parse(template or TEMPLATES[kind], kind)
    return Encoder(tokenizer or MAKE[kind](), parsed, words, max_length)


def columns(size: int = SIZE) -> dict[str, list[str]]:
    return {"a": random_texts(1, size), "b": random_texts(2, size), "unused": ["x"] * size}


@pytest.fixture(autouse=True)
def small_sets_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "WORTH_KEEPING", SIZE)


def assert_same(found: PackedTokens, expected: PackedTokens) -> None:
    for name in ("ids", "branch", "positions", "starts", "lengths", "mask_at"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype, name
        assert torch.equal(ours, theirs), name
    assert (found.truncated, found.pad_id) == (expected.truncated, expected.pad_id)
    assert (len(found), found.parts) == (len(expected), expected.parts)
    assert found.digest() == expected.digest()


def plain(used: Encoder, given: Mapping[str, Sequence[str]]) -> PackedTokens:
    return PackedTokens(used.encode(given), used.pad_id)


class Counting(Encoder):
    """Counts the rows that are tokenized."""

    rows = 0

    def encode(self, columns: Mapping[str, Sequence[str]]) -> Encoded:
        self.rows += len(columns["a"])
        return super().encode(columns)


def counting(kind: Kind, **changes: Any) -> Counting:
    made = encoder(kind, **changes)
    return Counting(made.tokenizer, made.template, made.label_words, made.max_length)


@kinds
@pytest.mark.parametrize("batch", [1000, 5, 1])
def test_kept_tokens_are_those_of_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, batch: int
) -> None:
    monkeypatch.setattr(tokens, "_BATCH", batch)
    used, folder = counting(kind), tmp_path / "deep" / "tokens"
    expected = plain(encoder(kind), columns())
    assert 0 < expected.truncated < SIZE
    first = tokenize(used, columns(), folder)
    assert used.rows == SIZE
    assert [path.suffix for path in folder.iterdir()] == [".arrow"]
    second = tokenize(used, columns(), folder)
    assert used.rows == SIZE  # read, not made
    third = tokenize(counting(kind), columns(), folder)  # by another process, so to say
    for found in (first, second, third):
        assert_same(found, expected)


@kinds
@pytest.mark.parametrize("size", [1, SIZE - 1])
def test_small_sets_are_not_kept(tmp_path: Path, kind: Kind, size: int) -> None:
    found = tokenize(encoder(kind), columns(size), tmp_path)
    assert_same(found, plain(encoder(kind), columns(size)))
    assert not list(tmp_path.iterdir())


@kinds
def test_nothing_is_kept_without_a_folder(kind: Kind) -> None:
    assert_same(tokenize(encoder(kind), columns(), None), plain(encoder(kind), columns()))


def test_what_is_read_does_not_hang_on_the_file(tmp_path: Path) -> None:
    """It can be written to and outlives the file, which others may remove."""
    tokenize(encoder("causal"), columns(), tmp_path)
    found = tokenize(encoder("causal"), columns(), tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(b"\0" * file.stat().st_size)
        file.unlink()
    assert_same(found, plain(encoder("causal"), columns()))
    found.ids[0] = 7


def changed_text(name: str) -> dict[str, list[str]]:
    given = columns()
    given[name][-1] += " x"
    return given


def swapped() -> dict[str, list[str]]:
    given = columns()
    return {"a": given["b"], "b": given["a"]}


def moved() -> dict[str, list[str]]:
    """The same characters, cut into rows elsewhere."""
    given = columns()
    given["a"][0], given["a"][1] = given["a"][0] + "x", given["a"][1]
    return given


with_words = (*WORDS[1:], WORDS[0])  # the same words under other numbers
OTHERS: dict[str, tuple[dict[str, Any], dict[str, list[str]]]] = {
    "text of a": ({}, changed_text("a")),
    "text of b": ({}, changed_text("b")),
    "columns swapped": ({}, swapped()),
    "order": ({}, {name: values[::-1] for name, values in columns().items()}),
    "a row more": ({}, columns(SIZE + 1)),
    "template": ({"template": "{a} ! <mask> , {b} ."}, columns()),
    "words": ({"words": ("great", "bad")}, columns()),
    "max_length": ({"max_length": 39}, columns()),
    "tokenizer": ({"tokenizer": wordpiece(with_words)}, columns()),
    "kind of tokenizer": ({"tokenizer": roberta_like()}, columns()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_tokens_depend_on_has_its_own_file(tmp_path: Path, name: str) -> None:
    tokenize(encoder("masked"), columns(), tmp_path)
    changes, given = OTHERS[name]
    other = counting("masked", **changes)
    found = tokenize(other, given, tmp_path)
    assert other.rows == len(given["a"])
    assert len(list(tmp_path.iterdir())) == 2
    assert_same(found, plain(encoder("masked", **changes), given))


def test_special_tokens_are_part_of_the_key() -> None:
    """They are added by the encoder, not by the tokenizer's rules."""
    one, other = causal(), causal()
    other.eos_token = "<pad>"
    assert encoder("causal", tokenizer=one).fingerprint() == encoder("causal").fingerprint()
    assert (
        encoder("causal", tokenizer=one).fingerprint()
        != encoder("causal", tokenizer=other).fingerprint()
    )


def test_columns_that_are_not_rendered_do_not_count(tmp_path: Path) -> None:
    tokenize(encoder("masked"), columns(), tmp_path)
    used = counting("masked")
    tokenize(used, columns() | {"unused": ["y"] * SIZE}, tmp_path)
    assert used.rows == 0
    assert len(list(tmp_path.iterdir())) == 1


SEAL = 80  # behind the Arrow stream: its key and its checksum


def values_at(content: bytes) -> list[int]:
    """Where the first token id and the first length lie in a file: numbers, not what is of them."""
    with pa.ipc.open_stream(content) as stream:
        batch = stream.read_next_batch()
    values = [batch.column(name).values.buffers()[1] for name in ("ids", "lengths")]
    return [content.index(of.to_pybytes()) for of in values]


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def resealed(file: Path, content: bytes) -> None:
    """Content with the seal of that file: by someone who knows how to count."""
    file.write_bytes(content + f"{file.stem}{xxh3_64_hexdigest(content)}".encode())


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"nothing of the kind" * 50,
        lambda content: content[: len(content) // 2],
        lambda content: content[:100],
        lambda content: b"\0" * len(content),
        lambda content: flipped(content, values_at(content)[0]),
        lambda content: flipped(content, values_at(content)[0] + 4 * SIZE),
        lambda content: flipped(content, values_at(content)[1]),
        lambda content: flipped(content, 0),
        lambda content: flipped(content, len(content) - SEAL - 1),
        lambda content: flipped(content, len(content) - SEAL),
        lambda content: flipped(content, len(content) - 1),
        lambda content: content[:-SEAL],  # as they were kept before there were checksums
        lambda content: content[:-1],
        lambda content: content[: -SEAL // 2],
        lambda content: content[:-SEAL] + b"0" * 64 + content[-16:],
        lambda content: content + b"x",
        lambda content: content[-SEAL:],
    ],
    ids=[
        *("empty", "other", "half", "start", "blank", "first id", "an id", "length", "first byte"),
        *("end of the stream", "flipped key", "flipped checksum", "no seal", "last byte gone"),
        *("half a seal", "seal of another", "longer", "nothing but the seal"),
    ],
)
@kinds
def test_a_damaged_file_is_made_anew(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: Kind,
    damage: Callable[[bytes], bytes],
) -> None:
    expected = tokenize(encoder(kind), columns(), tmp_path)
    [file] = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert tokens.problem(file) is not None
    with caplog.at_level(logging.WARNING):
        found = tokenize(encoder(kind), columns(), tmp_path)
    assert_same(found, expected)
    assert f"Tokens in {file} are made anew" in caplog.text
    caplog.clear()
    used = counting(kind)
    with caplog.at_level(logging.WARNING):
        assert_same(tokenize(used, columns(), tmp_path), expected)
    assert used.rows == 0  # sound again
    assert not caplog.records


def test_tokens_of_other_texts_are_not_read_under_another_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is whole, and its seal is right; only it is not the one that is asked for."""
    expected = tokenize(encoder("masked"), columns(), tmp_path)
    [file] = tmp_path.iterdir()
    tokenize(encoder("masked"), swapped(), tmp_path)
    [other] = set(tmp_path.iterdir()) - {file}
    file.write_bytes(other.read_bytes())
    assert_same(tokenize(encoder("masked"), columns(), tmp_path), expected)
    assert f"Tokens in {file} are made anew: its end is not there, or that of" in caplog.text


def remade(table: pa.Table, **changes: Any) -> bytes:
    """The stream of a table with other columns."""
    for name, values in changes.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda table: b"no table at all" * 9, "made anew"),
        (lambda table: remade(table.slice(1)), "another"),
        (lambda table: remade(table.drop_columns(["mask_at"])), "another"),
        (lambda table: remade(table, ids=["text"] * SIZE), "another"),
        (lambda table: remade(table, ids=[[1.5]] * SIZE), "another"),
        (lambda table: remade(table, lengths=[[5, -1]] * SIZE), "lengths are not"),
        (lambda table: remade(table, lengths=[[10**6]] * SIZE), "lengths are not"),
        (lambda table: remade(table, lengths=[[1], *([[1, 1]] * (SIZE - 1))]), "cannot reshape"),
    ],
)
def test_a_table_that_is_none_of_tokens_is_refused_whatever_its_seal(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[pa.Table], bytes],
    told: str,
) -> None:
    expected = tokenize(encoder("masked"), columns(), tmp_path)
    [file] = tmp_path.iterdir()
    with pa.ipc.open_stream(file.read_bytes()) as stream:
        resealed(file, change(stream.read_all()))
    assert tokens.problem(file) is None
    assert_same(tokenize(encoder("masked"), columns(), tmp_path), expected)
    assert f"Tokens in {file} are made anew" in caplog.text
    assert told in caplog.text


KILLED = """
import os, pathlib, signal, sys
from lpt.data import tokens
from tests.unit.data.test_tokens import SIZE, columns, encoder

tokens.WORTH_KEEPING = SIZE
place, when = sys.argv[2:]
owner = pathlib.Path if place == "replace" else tokens
do = getattr(owner, place)

def killed(*arguments):
    if when == "after":
        do(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, place, killed)
tokens.tokenize(encoder("masked"), columns(), pathlib.Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("place", "when", "kept"),
    [
        ("_rows", "after", 0),
        ("_packed", "before", 0),  # the stream is there
        ("_seal", "after", 0),
        ("replace", "before", 0),
        ("replace", "after", 1),
    ],
)
def test_who_is_killed_leaves_tokens_that_are_whole_or_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str, when: str, kept: int
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), place, when]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(tokens.kept(tmp_path)) == kept
    assert all(tokens.problem(file) is None for file in tokens.kept(tmp_path))
    used = counting("masked")
    assert_same(tokenize(used, columns(), tmp_path), plain(encoder("masked"), columns()))
    assert used.rows == (0 if kept else SIZE)
    assert not caplog.records
    assert tokens.clear(tmp_path) == 1
    assert not list(tmp_path.iterdir())


def test_what_fails_while_it_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tokens, "_seal", full)
    expected = plain(encoder("masked"), columns())
    assert_same(tokenize(encoder("masked"), columns(), tmp_path), expected)
    assert f"Tokens cannot be kept in {tmp_path}" in caplog.text
    assert not list(tmp_path.iterdir())


def test_several_make_the_same_tokens_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As the ranks of a run hint: each makes its own, and none takes another's away."""
    expected = plain(encoder("masked"), columns())
    seal, seals = tokens._seal, list[bytes]()

    def meanwhile(file: Path, size: int) -> bytes:
        seals.append(seal(file, size))
        if len(seals) == 1:  # another one begins and ends
            assert_same(tokenize(encoder("masked"), columns(), tmp_path), expected)
        return seals[0]

    monkeypatch.setattr(tokens, "_seal", meanwhile)
    assert_same(tokenize(encoder("masked"), columns(), tmp_path), expected)
    assert len(seals) == 2
    assert len(list(tmp_path.iterdir())) == 1
    used = counting("masked")
    assert_same(tokenize(used, columns(), tmp_path), expected)
    assert used.rows == 0
    assert not caplog.records


def test_the_command_line_lists_verifies_and_clears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LPT_CACHE", str(tmp_path / "[/caches]"))
    for given in (columns(), swapped()):
        tokenize(encoder("masked"), given, cache_dir("tokens"))
    first, second = tokens.kept(cache_dir("tokens"))
    for action in ("list", "verify"):
        assert main([action]) == 0
        shown = capsys.readouterr().out
        assert first.stem[:12] in shown
        assert second.stem[:12] in shown
        assert "[/caches]" in shown
    first.write_bytes(flipped(first.read_bytes(), values_at(first.read_bytes())[0]))
    assert main(["list"]) == 0
    assert main(["verify"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if first.stem[:12] in line and "checksum is wrong" in line]
    assert [line for line in lines if second.stem[:12] in line and "sound" in line]
    assert main(["clear"]) == 0
    assert "tokens of 2 sets removed" in capsys.readouterr().out
    assert not list(cache_dir("tokens").iterdir())
    assert main(["verify"]) == 0


@kinds
@pytest.mark.parametrize("max_length", [24, 30, 60])
def test_texts_are_shortened_as_one_at_a_time(kind: Kind, max_length: int) -> None:
    """The batch takes part in nothing: neither in what is cut nor in where it is put."""
    used = encoder(kind, max_length=max_length)
    texts = {"a": random_texts(7, 60), "b": random_texts(8, 60)}
    together = used.encode(texts)
    alone = [used.encode({name: [of[i]] for name, of in texts.items()}) for i in range(60)]
    assert together.context == [one.context[0] for one in alone]
    assert together.mask_at == [at for one in alone for at in one.mask_at]
    assert together.endings == [ends for one in alone for ends in one.endings]
    assert together.truncated == sum(one.truncated for one in alone)
    assert together.truncated > 0
