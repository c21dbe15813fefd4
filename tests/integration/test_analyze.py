"""lpt-analyze of real runs: their late prompts, beside their errors."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from lpt.cli.analyze import main
from lpt.experiment import run
from lpt.report.outcomes import read_outcome
from lpt.report.prompts import read_prompts
from tests.conftest import MakeConfig

SECTIONS = ["Classes and calibration of run", "Largest errors of run"]


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_a_late_prompt_is_shown(toy: MakeConfig, tmp_path: Path, model: str) -> None:
    record = run(toy(model, "prompt=mppg", "trainer.max_steps=20", "optim.lr=0.01"))
    assert record is not None
    folder = tmp_path / "run"
    states = read_prompts(read_outcome(folder, "dev"))
    assert states is not None
    assert states.vectors.shape == (24, 5, 32)
    assert states.attention.shape == (2, 4)
    assert [len(words) for words in states.words] == [5] * 5
    assert set(states.labels) == {"0", "1"}
    assert main([str(folder), "--set", "dev"]) == 0
    page = (folder / "analysis" / "index.html").read_text()
    assert re.findall("<h2>(.*)</h2>", page) == [*SECTIONS, "Late prompt of run"]
    assert f"accuracy {record.dev['accuracy']:.3f}" in page
    for name in ("slots", "prompts", "attention"):
        assert (folder / "analysis" / f"{name}-run.png").exists()


def test_one_prompt_for_every_text(toy: MakeConfig, tmp_path: Path) -> None:
    run(toy("masked", "prompt=static"))
    states = read_prompts(read_outcome(tmp_path / "run", "test"))
    assert states is not None
    assert np.ptp(states.vectors, axis=0).max() == 0
    assert main([str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "analysis" / "index.html").read_text()
    assert "The prompt is the same for every text." in page


def test_other_methods_and_a_backbone_that_has_moved(
    toy: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(toy("masked", "method=bitfit", "prompt.layer=null"))
    folder = tmp_path / "run"
    assert read_prompts(read_outcome(folder, "test")) is None
    run(toy("masked", "overwrite=true"))
    assert main([str(folder), "--model", str(tmp_path / "elsewhere")]) == 2
    assert "elsewhere" in capsys.readouterr().err
    assert not (folder / "analysis").exists()
    assert main([str(folder), "--no-prompts"]) == 0
