"""python -m lpt.data check | kshot | submission, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lpt.cli.data import compose_all, main
from lpt.training.plan import prepare
from tests.conftest import MakeConfig


@pytest.fixture
def root(tmp_path: Path, toy_data: Path) -> Path:
    """A data.root with MR's folder in it and a number task's."""
    folder = tmp_path / "root" / "mr"
    folder.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        (folder / f"{split}.tsv").write_text((toy_data / f"{split}.tsv").read_text())
    numbers = tmp_path / "root" / "STS-B"
    numbers.mkdir()
    rows = ["index\tsentence1\tsentence2\tscore"]
    rows += [f"{i}\tthe film is good\tthe film is bad\t{i % 6}.000" for i in range(24)]
    for split in ("train", "dev", "test"):
        (numbers / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "root"


def model(checkpoints: dict[str, Path], kind: str = "masked") -> list[str]:
    return ["model=local", f"model.path={checkpoints[kind]}", "data.max_length=64"]


def mr(root: Path) -> list[str]:
    return ["task=mr", f"data.root={root}", "task.label_words=[bad,good]"]


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_check_shows_what_a_model_is_given(
    root: Path, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert main(["check", *model(checkpoints, kind), *mr(root)]) == 0
    shown = capsys.readouterr().out
    for wanted in ("mr · ", "accuracy", "label words", "'bad'", "'good'", "cut at 64", "80", "24"):
        assert wanted in shown
    assert ("<mask>" in shown) == (kind == "masked")
    assert "Ready: 1. With problems: 0." in shown


@pytest.mark.parametrize("text", ["[/bold]", "[red]x", "a.tsv:100: x"])
def test_any_text_is_shown_as_it_is(
    root: Path,
    checkpoints: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    named = [*model(checkpoints), *mr(root), f"model.name='{text}'"]
    assert main(["check", *named, f"task.template='{text} {{text}} <mask>'"]) == 0
    shown = capsys.readouterr().out
    assert f"mr · {text} · " in shown
    assert f"{text} {{text}} <mask>" in shown
    assert main(["check", *named, f"task.name='{text}'"]) == 1
    assert f"{text}: problems" in capsys.readouterr().out
    out = root / text
    assert main(["kshot", "task=mr", f"data.root={root}", "data.k=4", "--out", str(out)]) == 0
    assert f"1 split files in {out};" in capsys.readouterr().out


def test_check_counts_what_is_cut(
    root: Path, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["check", *model(checkpoints)[:2], "data.max_length=9", *mr(root)])
    shown = capsys.readouterr().out
    [train] = [line for line in shown.splitlines() if " train " in line]
    assert "80 (100.0 %)" in train


def test_check_of_a_faulty_task_fails_and_goes_on(
    root: Path, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "mr" / "train.tsv").write_text("2\tthe film\n0\tbad\n")
    command = [
        *model(checkpoints),
        "task=mr,stsb",
        f"data.root={root}",
        "task.label_words=[bad,good]",
    ]
    assert main(["check", *command]) == 1
    shown = capsys.readouterr().out
    assert "mr: problems" in shown
    assert "train.tsv:1" in shown.replace("\n", "").replace("│", "").replace(" ", "")
    assert "stsb · " in shown
    assert "Ready: 1. With problems: 1." in shown


def test_all_means_those_that_are_there(
    root: Path, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*model(checkpoints), "task=all", f"data.root={root}", "task.label_words=[bad,good]"]
    assert main(["check", *command]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Ready: 2. With problems: 0." in shown
    assert "boolq" in shown.partition("Not under")[2]
    assert main(["check", *model(checkpoints), "task=boolq", f"data.root={root}"]) == 1


def test_kshot_writes_split_files_that_a_run_can_be_held_to(
    root: Path, tmp_path: Path, toy: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "splits"
    command = ["task=mr,stsb", f"data.root={root}", "data.k=4", "data.dev_k=4", "data.seed=1,2"]
    assert main(["kshot", *command, "--out", str(out)]) == 0
    files = sorted(path.name for path in out.iterdir())
    assert files == [f"{t}-total-k4-dev4-seed{s}.json" for t in ("mr", "stsb") for s in (1, 2)]
    assert "4 split files" in capsys.readouterr().out
    written = json.loads((out / files[0]).read_text())
    assert len(written["sets"]["train"]["rows"]) == 4
    kshot = ["data=kshot", "data.k=4", "data.dev_k=4", f"data.path={root / 'mr'}", "task.name=mr"]
    held = [*kshot, f"data.verify={out / files[0]}"]
    for kind in ("masked", "causal"):  # the file was written without a model
        prepare(toy(kind, *held, "data.seed=1"))
    with pytest.raises(ValueError, match=r"dev_k, draw, seed, test and limit_\* of that run"):
        prepare(toy("masked", *held, "data.seed=2"))


def test_kshot_does_not_replace_another_split(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "splits"
    command = ["kshot", "task=mr", f"data.root={root}", "data.k=4", "data.dev_k=4"]
    assert main([*command, "--out", str(out)]) == 0
    [file] = out.iterdir()
    before = file.read_text()
    assert main([*command, "--out", str(out)]) == 0  # the same again
    train = root / "mr" / "train.tsv"
    train.write_text("\n".join(reversed(train.read_text().splitlines())) + "\n")
    capsys.readouterr()
    assert main([*command, "--out", str(out)]) == 1
    assert str(file) in capsys.readouterr().err
    assert file.read_text() == before


def test_kshot_writes_what_it_can_and_names_the_rest(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "STS-B" / "train.tsv").write_text("sentence1\tsentence2\tscore\nx\ty\t7\n")
    command = ["task=mr,stsb", f"data.root={root}", "data.k=4", "data.dev_k=4"]
    assert main(["kshot", *command, "--out", str(tmp_path / "splits")]) == 1
    assert "train.tsv:2" in capsys.readouterr().err
    [written] = (tmp_path / "splits").iterdir()
    assert written.name.startswith("mr-")


FAULTS = {"data.sampling=typo": "data.sampling", "data=full": "data.protocol", "data.k=1": "data.k"}
FAULTS["data.root=nowhere"] = "data.root"


@pytest.mark.parametrize("fault", FAULTS)
def test_kshot_refuses_bad_settings(
    fault: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["task=mr", f"data.root={root}", "data.k=4", "data.dev_k=4", fault]
    assert main(["kshot", *command, "--out", str(tmp_path / "splits")]) == 1
    assert f"{FAULTS[fault]}: " in capsys.readouterr().err
    assert not (tmp_path / "splits").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "task=nope"], "no such choice"),
        (["check", "daat.root=x"], "did you mean data.root"),
        (["kshot", "task=mr"], "data.path"),
        (["submission", "nowhere"], "no metrics.json"),
    ],
)
def test_a_wrong_command_is_told(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([*arguments, "--out", str(tmp_path / "out")])
    written = capsys.readouterr()
    assert status in (1, 2)
    assert said in written.err + written.out


def test_combinations() -> None:
    configs = compose_all(["task=mr,subj", "data=kshot", "data.k=16", "data.seed=1,2"])
    assert [(c.task.name, c.data.seed) for c in configs] == [
        (task, seed) for task in ("mr", "subj") for seed in (1, 2)
    ]
