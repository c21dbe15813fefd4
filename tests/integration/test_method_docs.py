"""docs/methods.md has the numbers of the code; the method of docs/add-a-method.md runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lpt.config.method_schema import PROMPT_KINDS
from lpt.config.schema import first_layer
from lpt.methods.registry import METHODS, build_method
from tests.conftest import toy_overrides
from tests.support.configs import ROOT, resolved
from tests.unit.methods.test_what_trains import roberta

DEPTH = 12  # of RoBERTa-base


def rows() -> dict[str, tuple[str, str, str]]:
    """Choice of `method=` or `prompt=` -> its default layer, rate and number of parameters."""
    found = {}
    for line in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`(\w+)`", cells[0]) if line.startswith("| `") else ():
            layer, rate, count, _ = cells[-4:]
            found[name] = (layer, rate, count)
    return found


def test_every_method_has_a_row() -> None:
    assert set(rows()) == {*METHODS, *PROMPT_KINDS}


@pytest.mark.parametrize("name", rows())
def test_numbers_of_a_row(name: str) -> None:
    layer, rate, count = rows()[name]
    if not (layer and count):
        return
    group = "prompt" if name in PROMPT_KINDS else "method"
    config = resolved("model=roberta-base", f"{group}={name}")
    assert eval(layer, {"L": DEPTH}) == first_layer(config)
    assert float(rate) == config.optim.lr
    method = build_method(config, roberta("base"), None)
    assert f"{method.count_parameters()['trainable']:,}" == count


def test_the_method_of_the_guide_runs(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path
) -> None:
    for name in ("lpt", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```(?:python|yaml)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    module, builder, settings, config = blocks
    (tmp_path / "lpt/methods/output_scale.py").write_text(module)
    imported = "from lpt.methods.output_scale import build_output_scale\n"
    insert(tmp_path / "lpt/methods/registry.py", "from lpt.methods.weights", imported)
    insert(tmp_path / "lpt/methods/registry.py", '        "full": _full', builder)
    insert(tmp_path / "lpt/config/method_schema.py", '        "full": ()', settings)
    (tmp_path / "conf/method/output_scale.yaml").write_text(re.sub("^ +", "", config, flags=re.M))

    overrides = toy_overrides(checkpoints, toy_data, "masked", "method=output_scale")
    overrides = [text for text in overrides if not text.startswith("prompt.")]
    command = [sys.executable, "-m", "lpt.cli.train", *overrides, "method.layer=3", "run_dir=run"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    saved = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert len(saved) == 2 * 2  # of two layers, attention and feed-forward part
    assert record["parameters"]["trainable"] == sum(tensor.numel() for tensor in saved.values())
    assert record["cache"]["sets"]  # the layers below are frozen


def insert(file: Path, before: str, text: str) -> None:
    """Insert text in front of the line that begins like this."""
    head, found, tail = file.read_text().partition(f"\n{before}")
    assert found
    file.write_text(f"{head}\n{text.strip()}{found}{tail}")
