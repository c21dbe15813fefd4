"""lpt-data check | kshot | submission, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lpt.cli.data import main
from lpt.config.compose import compose_grid
from lpt.training.plan import prepare
from tests.conftest import MakeConfig
from tests.support.configs import CONF
from tests.support.problems import problem_of

Capture = pytest.CaptureFixture[str]


KSHOT = ("data.k=4", "data.dev_k=4")


def kshot(root: Path, out: Path, *overrides: str) -> int:
    return main(["kshot", f"data.root={root}", *KSHOT, *overrides, "--out", str(out)])


def test_kshot_writes_split_files_to_verify_runs_against(
    root: Path, tmp_path: Path, toy: MakeConfig, capsys: Capture
) -> None:
    out = tmp_path / "splits"
    assert kshot(root, out, "task=mr,stsb", "data.seed=1,2") == 0
    assert (
        f"Wrote 4 split files to {out}; use one with data.verify=FILE." in capsys.readouterr().out
    )
    files = sorted(path.name for path in out.iterdir())
    assert files == [f"{t}-total-k4-dev4-seed{s}.json" for t in ("mr", "stsb") for s in (1, 2)]
    written = json.loads((out / files[0]).read_text())
    assert len(written["sets"]["train"]["rows"]) == 4
    verified = ["data=kshot", *KSHOT, f"data.path={root / 'mr'}", "task.name=mr"]
    verified += [f"data.verify={out / files[0]}"]
    for kind in ("masked", "causal"):  # the file was written without a model
        prepare(toy(kind, *verified, "data.seed=1"))
    with pytest.raises(ValueError, match=r"dev_k, sampling, seed, test and limit_\* of that run"):
        prepare(toy("masked", *verified, "data.seed=2"))


def test_kshot_does_not_replace_a_different_split(
    root: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "splits"
    assert kshot(root, out, "task=mr") == kshot(root, out, "task=mr") == 0
    [file] = out.iterdir()
    before = file.read_text()
    train = root / "mr" / "train.tsv"
    train.write_text("\n".join(reversed(train.read_text().splitlines())) + "\n")
    assert kshot(root, out, "task=mr") == 1
    assert f"{file}: a different split" in capsys.readouterr().err
    assert file.read_text() == before


def test_tasks_of_the_user(root: Path, tmp_path: Path) -> None:
    task = tmp_path / "configs" / "task" / "mine.yaml"
    task.parent.mkdir(parents=True)
    task.write_text((CONF / "task" / "mr.yaml").read_text().replace("name: mr", "name: mine"))
    (root / "mr").rename(root / "mine")
    configs = ["--config-dir", str(tmp_path / "configs")]
    assert kshot(root, tmp_path / "splits", "task=mine", *configs) == 0
    assert [f.name for f in (tmp_path / "splits").iterdir()] == ["mine-total-k4-dev4-seed13.json"]


FAULTS = {"data.sampling=typo": "data.sampling", "data=full": "data.protocol", "data.k=1": "data.k"}
FAULTS["data.root=nowhere"] = "data.root"


@pytest.mark.parametrize("fault", FAULTS)
def test_kshot_refuses_bad_settings(
    fault: str, root: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert kshot(root, tmp_path / "splits", "task=mr", fault) == 1
    assert f"{FAULTS[fault]}: " in capsys.readouterr().err
    assert not (tmp_path / "splits").exists()


def test_kshot_writes_all_other_splits(root: Path, tmp_path: Path, capsys: Capture) -> None:
    (root / "STS-B" / "train.tsv").write_text("sentence1\tsentence2\tscore\nx\ty\t7\n")
    assert kshot(root, tmp_path / "splits", "task=mr,stsb") == 1
    assert "train.tsv:2" in capsys.readouterr().err
    [written] = (tmp_path / "splits").iterdir()
    assert written.name.startswith("mr-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "task=nope"], "no such choice"),
        (["check", "daat.root=x"], "did you mean data.root"),
        (["kshot", "task=mr"], "data.path"),
        (["submission"], "folders of finished runs"),
        (["submission", "nowhere"], "metrics.json"),
    ],
)
def test_invalid_commands(
    arguments: list[str], message: str, tmp_path: Path, capsys: Capture
) -> None:
    assert main([*arguments, "--out", str(tmp_path / "out")]) in (1, 2)
    output = capsys.readouterr()
    assert message in output.err + output.out


def test_grid_of_configurations() -> None:
    configs = compose_grid(["task=mr,subj", "data=kshot", "data.k=16", "data.seed=1,2"])
    assert [(c.task.name, c.data.seed) for c in configs] == [
        (task, seed) for task in ("mr", "subj") for seed in (1, 2)
    ]
    assert problem_of(lambda: compose_grid(["task=nope"])).where == "task=nope"
