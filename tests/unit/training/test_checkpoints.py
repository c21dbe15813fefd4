"""Checkpoints are read whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lpt.errors import ConfigError
from lpt.runs.run_dir import BEST, CHECKPOINTS, LAST
from lpt.training.checkpoints import AtomicCheckpointIO, latest_checkpoint, read_checkpoint

WEIGHT = "model.generator.up.weight"
STATE: dict[str, Any] = {
    "global_step": 6,
    "callbacks": {"best": {"best_model_path": "run/checkpoints/best.ckpt"}, "throughput": {}},
    "state_dict": {WEIGHT: torch.arange(500.0)},
}


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("checkpoint") / LAST
    AtomicCheckpointIO().save_checkpoint(STATE, file)
    return file.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / LAST


def unchanged(found: dict[str, Any]) -> bool:
    weight = found.pop("state_dict")[WEIGHT]
    return torch.equal(weight, STATE["state_dict"][WEIGHT]) and found.items() <= STATE.items()


def test_round_trip(tmp_path: Path) -> None:
    file = tmp_path / CHECKPOINTS / BEST
    AtomicCheckpointIO().save_checkpoint(STATE, file)
    assert unchanged(AtomicCheckpointIO().load_checkpoint(file))
    assert [path.name for path in file.parent.iterdir()] == [BEST]


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
    assert unchanged(found)


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_found(content: bytes, scratch: Path, share: float) -> None:
    scratch.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"\S"):
        read_checkpoint(scratch)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil"),))


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**STATE, "callbacks": Evil()}, tmp_path / "pickled")
    for name in ("pickled", "absent"):
        with pytest.raises(ValueError, match=r"\S"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "evil").exists()


def save(run_dir: Path, **steps: int) -> None:
    for name, step in steps.items():
        file = run_dir / CHECKPOINTS / f"{name}.ckpt"
        AtomicCheckpointIO().save_checkpoint({**STATE, "global_step": step}, file)


def test_the_latest_readable_checkpoint_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / CHECKPOINTS
    save(tmp_path, best=6, last=9)
    assert latest_checkpoint(tmp_path) == (folder / LAST, 9)
    save(tmp_path, best=12)  # killed before the last one was written
    assert latest_checkpoint(tmp_path) == (folder / BEST, 12)
    save(tmp_path, last=12)
    assert latest_checkpoint(tmp_path) == (folder / LAST, 12)
    (folder / LAST).write_bytes(b"")
    assert latest_checkpoint(tmp_path) == (folder / BEST, 12)


def test_a_run_is_not_resumed_without_its_best_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, best=6, last=9)
    best, last = (tmp_path / CHECKPOINTS / name for name in (BEST, LAST))
    best.write_bytes(b"")
    with pytest.raises(ConfigError, match=f"remove {tmp_path / CHECKPOINTS} to start over"):
        latest_checkpoint(tmp_path)
    state = {**STATE, "callbacks": {"best": {"best_model_path": ""}}}
    AtomicCheckpointIO().save_checkpoint(state, last)  # before the first evaluation
    assert latest_checkpoint(tmp_path) == (last, 6)
