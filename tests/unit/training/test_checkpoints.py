"""Checkpoints are read whole or not at all."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lpt.errors import ConfigError, RunError
from lpt.files import write_atomically
from lpt.training.checkpoints import BEST, LAST, AtomicCheckpointIO, latest_state, read_checkpoint

STATE: dict[str, Any] = {
    "global_step": 6,
    "callbacks": {"best": {"best_model_path": "run/checkpoints/best.ckpt"}, "meter": {}},
    "state_dict": {"model.generator.up.weight": torch.arange(500.0)},
    "loops": {},
    "optimizer_states": [],
    "lr_schedulers": [],
}


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("checkpoint") / LAST
    AtomicCheckpointIO().save_checkpoint(STATE, file)
    return file.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / LAST


def same(found: dict[str, Any]) -> bool:
    weights = "model.generator.up.weight"
    rest = {key: value for key, value in found.items() if key != "state_dict"}
    return torch.equal(found["state_dict"][weights], STATE["state_dict"][weights]) and rest == {
        key: value for key, value in STATE.items() if key != "state_dict"
    }


def test_round_trip(tmp_path: Path) -> None:
    files = AtomicCheckpointIO()
    files.save_checkpoint(STATE, tmp_path / "checkpoints" / BEST)
    assert same(files.load_checkpoint(tmp_path / "checkpoints" / BEST))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [BEST]


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@example(place=0.5, bit=3)
def test_a_flipped_bit_is_found_or_does_no_harm(
    content: bytes, scratch: Path, place: float, bit: int
) -> None:
    damaged = bytearray(content)
    damaged[int(place * len(content))] ^= 1 << bit
    scratch.write_bytes(damaged)
    try:
        found = read_checkpoint(scratch)
    except ValueError:
        return
    assert same(found)


def test_a_flipped_bit_among_the_weights_is_found(content: bytes, scratch: Path) -> None:
    """Which torch reads without a word."""
    at = content.index(STATE["state_dict"]["model.generator.up.weight"].numpy().tobytes())
    damaged = bytearray(content)
    damaged[at + 1000] ^= 1
    scratch.write_bytes(damaged)
    assert not same(torch.load(scratch, weights_only=True))
    with pytest.raises(ValueError, match="damaged"):
        read_checkpoint(scratch)


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_found(content: bytes, scratch: Path, share: float) -> None:
    scratch.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"\S"):
        read_checkpoint(scratch)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil"),))


def test_nothing_is_run_and_nothing_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**STATE, "callbacks": Evil()}, tmp_path / "pickled")
    (tmp_path / "bare").write_bytes(pickle.dumps(Evil()))
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\0" * 10_000_000)
    for name in ("pickled", "bare", "bomb", "absent", "."):
        with pytest.raises(ValueError, match=r"\S"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("part", STATE)
def test_what_is_no_state_is_refused(tmp_path: Path, part: str) -> None:
    for other in ("text", [None], {"a": "b"}, None):
        if type(other) is not type(STATE[part]) or part == "state_dict":
            torch.save({**STATE, part: other}, tmp_path / LAST)
            with pytest.raises(ValueError, match=part):
                read_checkpoint(tmp_path / LAST)
    torch.save({name: of for name, of in STATE.items() if name != part}, tmp_path / LAST)
    with pytest.raises(ValueError, match=part):
        read_checkpoint(tmp_path / LAST)


def test_what_was_damaged_under_a_run_is_told(content: bytes, scratch: Path) -> None:
    scratch.write_bytes(content[:-1])
    with pytest.raises(RunError, match=f"{scratch} was changed or removed while the run went on"):
        AtomicCheckpointIO().load_checkpoint(scratch)


def save(folder: Path, **steps: int) -> None:
    for name, step in steps.items():
        AtomicCheckpointIO().save_checkpoint(
            {**STATE, "global_step": step}, folder / f"{name}.ckpt"
        )


def test_the_furthest_whole_state_is_taken(tmp_path: Path) -> None:
    save(tmp_path, best=6, last=9)
    assert latest_state(tmp_path) == (tmp_path / LAST, 9)
    save(tmp_path, best=12)  # killed before the last one was written
    assert latest_state(tmp_path) == (tmp_path / BEST, 12)
    save(tmp_path, last=12)
    assert latest_state(tmp_path) == (tmp_path / LAST, 12)
    (tmp_path / LAST).write_bytes(b"")
    assert latest_state(tmp_path) == (tmp_path / BEST, 12)


@pytest.mark.parametrize("damage", ["empty", "missing"])
def test_a_run_does_not_go_on_without_its_best_state(tmp_path: Path, damage: str) -> None:
    save(tmp_path, best=6, last=9)
    (tmp_path / BEST).write_bytes(b"")
    if damage == "missing":
        (tmp_path / BEST).unlink()
    with pytest.raises(ConfigError, match=f"remove {tmp_path} to start anew"):
        latest_state(tmp_path)
    state = {**STATE, "callbacks": {"best": {"best_model_path": ""}}}
    AtomicCheckpointIO().save_checkpoint(state, tmp_path / LAST)  # before the first evaluation
    assert latest_state(tmp_path) == (tmp_path / LAST, 6)


def test_writing_fails_without_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    write_atomically(file, "before")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match=r"No space left on device: .*a\.txt"):
        write_atomically(file, "after")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
