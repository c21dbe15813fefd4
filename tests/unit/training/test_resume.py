"""Which run is resumed: its settings and data are compared, damaged files are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lpt.config.resolve import to_dict
from lpt.data.split_file import SetDescription, SplitDescription
from lpt.errors import ConfigError
from lpt.runs.record import RunRecord
from lpt.training.checkpoints import find_earlier_run
from tests.support import runs
from tests.support.configs import resolved

SHA = "0" * 64


def splits(**changed: str) -> SplitDescription:
    """Of train, dev, test and an extra set, some with another checksum."""
    digests = dict.fromkeys(("train", "dev", "test", "more"), SHA) | changed
    sets = {
        name: SetDescription(origin="made up", sha256=digest, rows=[0, 1])
        for name, digest in digests.items()
    }
    return SplitDescription(
        task="reviews", kind="masked", template="{text} <mask>", sha256=SHA, sets=sets
    )


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Folder of a finished run."""
    config = to_dict(resolved(f"run_dir={tmp_path}"))
    content = runs.metrics() | {"config": config}
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    (tmp_path / "split.json").write_text(splits().to_json())
    return tmp_path


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """Folder of a run that was stopped; its checkpoint is read last."""
    config = to_dict(resolved(f"run_dir={tmp_path}"))
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    (tmp_path / "split.json").write_text(splits().to_json())
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"not read")
    return tmp_path


@pytest.mark.parametrize("kind", ["finished", "interrupted"])
@pytest.mark.parametrize("changed", [None, "train", "test", "more"])
def test_other_settings_and_examples_are_refused_at_once(
    request: pytest.FixtureRequest, kind: str, changed: str | None
) -> None:
    run_dir = request.getfixturevalue(kind)
    other = ("optim.lr=0.5", "seed=99", "prompt.layer=2", "task.label_words=[good,bad]")
    keys = {text.partition("=")[0] for text in other} | ({"resume"} if changed else set())
    now = splits(**{changed: "1" * 64} if changed else {})
    with pytest.raises(ConfigError) as caught:
        find_earlier_run(resolved(f"run_dir={run_dir}", "resume=auto", *other), now)
    assert {problem.where for problem in caught.value.problems} == keys
    assert all("the run was started" in problem.given for problem in caught.value.problems)


FREE = ("logger=csv", "cache=off", "data.num_workers=2", "data.root=elsewhere")


def test_a_finished_run_is_found_again(finished: Path) -> None:
    """Also by its folder, and with settings that do not change its result."""
    for resume in ("resume=auto", f"resume={finished}"):
        record = find_earlier_run(resolved(f"run_dir={finished}", resume, *FREE), splits())
        assert isinstance(record, RunRecord)
        assert record.dev == runs.metrics()["dev"]
    assert find_earlier_run(resolved(f"run_dir={finished}"), splits()) is None


def test_settings_that_do_not_change_the_result_may_differ(interrupted: Path) -> None:
    with pytest.raises(ConfigError, match="no readable checkpoint"):  # all else was accepted
        find_earlier_run(resolved(f"run_dir={interrupted}", "resume=auto", *FREE), splits())


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("interrupted before its first checkpoint")
    assert find_earlier_run(resolved(f"run_dir={tmp_path}", "resume=auto"), splits()) is None
