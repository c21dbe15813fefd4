"""lpt-data check | kshot | submission, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lpt.cli.data import main
from lpt.errors import USAGE_ERROR
from lpt.training.plan import prepare
from tests.conftest import MakeConfig
from tests.support.configs import CONF

Capture = pytest.CaptureFixture[str]
KSHOT = ("data.k=4", "data.dev_k=4")


@pytest.fixture
def root(tmp_path: Path, toy_data: Path) -> Path:
    """A data.root with the folders of MR and of a regression task."""
    rows = ["index\tsentence1\tsentence2\tscore"]
    rows += [f"{i}\tthe film is good\tthe film is bad\t{i % 6}.000" for i in range(24)]
    for name in ("mr", "STS-B"):
        (tmp_path / "root" / name).mkdir(parents=True)
    for file in toy_data.iterdir():
        (tmp_path / "root" / "mr" / file.name).write_text(file.read_text())
        (tmp_path / "root" / "STS-B" / file.name).write_text("\n".join(rows) + "\n")
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("check task=nope", USAGE_ERROR, "no such choice"),
        ("check daat.root=x", USAGE_ERROR, "did you mean data.root"),
        ("kshot task=mr", 1, "data.path"),
        ("kshot task=mr data.root=nowhere", 1, "data.root: "),
        ("kshot task=mr data.root={root} data.sampling=typo", 1, "data.sampling: "),
        ("kshot task=mr data.root={root} data=full", 1, "data.protocol: "),
        ("kshot task=mr data.root={root} data.k=1", 1, "data.k: "),
        ("submission", USAGE_ERROR, "folders of finished runs"),
        ("submission nowhere", USAGE_ERROR, "metrics.json"),
    ],
)
def test_refused(
    command: str, status: int, message: str, root: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert main([*command.format(root=root).split(), "--out", str(out)]) == status
    assert message in capsys.readouterr().err
    assert not out.exists()


def check(root: Path, checkpoints: dict[str, Path], *overrides: str, kind: str = "masked") -> int:
    """Run `check` on MR's folder; words are tokens of the tiny models."""
    model = ["model=local", f"model.path={checkpoints[kind]}", "data.max_length=64"]
    task = ["task=mr", f"data.root={root}", "task.label_words=[bad,good]"]
    given = {override.partition("=")[0] for override in overrides}
    defaults = [o for o in (*model, *task) if o.partition("=")[0] not in given]
    return main(["check", *defaults, *overrides])


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_check_shows_the_model_input(
    root: Path, checkpoints: dict[str, Path], capsys: Capture, kind: str
) -> None:
    assert check(root, checkpoints, "model.name='[/b] :100:'", kind=kind) == 0
    output = capsys.readouterr().out
    for part in (
        "mr · [/b] :100: · ",
        "accuracy",
        "label words",
        "'bad'",
        "'good'",
        "truncated",
        "80",
    ):
        assert part in output
    assert ("<mask>" in output) == (kind == "masked")
    assert "Ready: 1. With problems: 0." in output
    check(root, checkpoints, f"data.max_length={9 if kind == 'masked' else 12}", kind=kind)
    [train] = [line for line in capsys.readouterr().out.splitlines() if " train " in line]
    assert ("80 (100.0 %)" in train) == (kind == "masked")


def test_check_shows_what_makes_scores_doubtful(
    root: Path, checkpoints: dict[str, Path], capsys: Capture
) -> None:
    (root / "mr" / "train.tsv").write_text("".join(f"1\tfilm {i}\n" for i in range(30)))
    assert check(root, checkpoints, "data=kshot", *KSHOT) == 0
    output = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "warning No training example has the label '0'." in output
    assert "warning All 4 training examples have the same label." in output


def test_check_continues_after_a_faulty_task(
    root: Path, checkpoints: dict[str, Path], capsys: Capture
) -> None:
    (root / "mr" / "train.tsv").write_text("2\tthe film\n0\tbad\n")
    assert check(root, checkpoints, "task=mr,stsb") == 1
    output = capsys.readouterr().out
    assert "mr: problems" in output
    assert "train.tsv:1" in output.replace("\n", "").replace("│", "").replace(" ", "")
    assert "stsb · " in output
    assert "Ready: 1. With problems: 1." in output


def test_check_of_all_tasks_with_data(
    root: Path, checkpoints: dict[str, Path], capsys: Capture
) -> None:
    assert check(root, checkpoints, "task=all") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "Ready: 2. With problems: 0." in output
    assert "boolq" in output.partition("Not under")[2]


def kshot(root: Path, out: Path, *overrides: str) -> int:
    return main(["kshot", f"data.root={root}", *KSHOT, *overrides, "--out", str(out)])


def test_kshot_writes_split_files_to_verify_runs_against(
    root: Path, tmp_path: Path, toy: MakeConfig, capsys: Capture
) -> None:
    out = tmp_path / "splits"
    assert kshot(root, out, "task=mr,stsb", "data.seed=1,2") == 0
    assert f"Wrote 4 split files to {out}" in capsys.readouterr().out
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


def test_kshot_of_a_task_of_the_user(root: Path, tmp_path: Path) -> None:
    task = tmp_path / "configs" / "task" / "mine.yaml"
    task.parent.mkdir(parents=True)
    task.write_text((CONF / "task" / "mr.yaml").read_text().replace("name: mr", "name: mine"))
    (root / "mr").rename(root / "mine")
    configs = ["--config-dir", str(tmp_path / "configs")]
    assert kshot(root, tmp_path / "splits", "task=mine", *configs) == 0
    assert [f.name for f in (tmp_path / "splits").iterdir()] == ["mine-total-k4-dev4-seed13.json"]


def test_kshot_writes_all_other_splits(root: Path, tmp_path: Path, capsys: Capture) -> None:
    (root / "STS-B" / "train.tsv").write_text("sentence1\tsentence2\tscore\nx\ty\t7\n")
    assert kshot(root, tmp_path / "splits", "task=mr,stsb") == 1
    assert "train.tsv:2" in capsys.readouterr().err
    [written] = (tmp_path / "splits").iterdir()
    assert written.name.startswith("mr-")
