"""Models and data sets of a Hub that refuses, fails or hangs; in the cache or not."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from lpt.config.schema import Config
from lpt.data.sources import HubSource
from lpt.errors import ConfigError, HubError
from lpt.experiment import run
from lpt.models.backbone import Backbone, find_backbone, load_model
from lpt.training.plan import dry_run
from tests.conftest import MakeConfig
from tests.support.configs import configured
from tests.support.hub_server import COMMIT, HubServer
from tests.support.problems import problem_of

FAULTS = [429, 500, 503, "drop", "hang"]
numbers = count()


@pytest.fixture
def model(hub: HubServer, checkpoints: dict[str, Path]) -> str:
    """Id of a model that is in no cache."""
    name = f"tiny/bert-{next(numbers)}"
    hub.repos[name] = checkpoints["masked"]
    return name


@pytest.fixture
def data(hub: HubServer, tmp_path: Path) -> str:
    """Id of a data set that is in no cache."""
    name = f"tiny/texts-{next(numbers)}"
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("text,label\n" + "fine,1\n" * 50)
    hub.repos[f"datasets/{name}"] = tmp_path
    return name


def found(name: str, revision: str | None = None) -> Backbone:
    return find_backbone(name="x", path=name, revision=revision, package=None, gguf_file=None)


def load(name: str, revision: str | None = None) -> int:
    return load_model(found(name, revision), dtype=torch.float32).num_parameters()


def read(name: str) -> int:
    return len(HubSource(name, None, {"train": "train"}).read("train"))


def refused(call: Callable[[], object], kind: type[ConfigError]) -> str:
    """The message of the only problem; in time."""
    start = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        call()
    assert time.monotonic() - start < 10
    assert type(caught.value) is kind
    [problem] = caught.value.problems
    return str(problem)


def test_a_model_with_its_commit(model: str) -> None:
    for revision in (None, "main", "v1.0", COMMIT):
        assert found(model, revision).commit == COMMIT
    assert load(model, "v1.0") > 0


def test_what_the_hub_does_not_have(hub: HubServer, model: str, data: str) -> None:
    said = refused(lambda: load("tiny/absent"), ConfigError)
    assert said.startswith("model.path: tiny/absent, which is not on the Hub or is private")
    assert "HF_TOKEN" in said
    said = refused(lambda: load(model, "v9"), ConfigError)
    assert said.startswith(f"model.revision: v9, which {model} does not have")
    assert f"/{model}" in said.partition("expected")[2]
    said = refused(lambda: read("tiny/absent"), ConfigError)
    assert said.startswith(
        "data.path: null, and tiny/absent on the hub is gated, private or absent"
    )
    said = refused(lambda: HubSource(data, None, {"dev": "dev"}).read("dev"), ConfigError)
    assert "could not be loaded" in said
    assert "dev" in said


def test_neither_a_folder_nor_an_id(hub: HubServer) -> None:
    for path in ("no/such/folder", "/no/such", "a b"):
        for offline in (False, True):
            constants.HF_HUB_OFFLINE = offline
            assert "neither a local folder nor" in refused(lambda: load(path), ConfigError)  # noqa: B023


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ((401, "GatedRepo"), "gated"),
        ((403, "GatedRepo"), "gated"),
        ((403, ""), "the Hub refuses access"),
        ((401, ""), "the Hub refuses access"),
    ],
)
def test_no_access(
    hub: HubServer, model: str, data: str, answer: tuple[int, str], fault: str
) -> None:
    hub.denied = {model: answer, f"datasets/{data}": answer}
    for call, page in ((lambda: load(model), model), (lambda: read(data), f"datasets/{data}")):
        said = refused(call, ConfigError)
        assert fault in said
        assert f"{constants.ENDPOINT}/{page}, then" in said
        assert "`hf auth login`" in said
        assert "HF_TOKEN" in said


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_hub(hub: HubServer, model: str, data: str, fault: int | str) -> None:
    hub.fault = fault
    reason = {"drop": "disconnected", "hang": "timed out"}.get(str(fault), str(fault))
    for call, where in ((lambda: load(model), "model.path"), (lambda: read(data), "data.path")):
        said = refused(call, HubError)
        assert said.startswith(where)
        assert "Hub is unavailable" in said
        assert reason in said
        assert "FOLDER" in said
    assert len(hub.asked) <= 2


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_the_cache_serves_instead(
    hub: HubServer, model: str, data: str, fault: int | str, after: int
) -> None:
    for call in (lambda: load(model), lambda: read(data)):
        expected = call()
        hub.fault, hub.after = fault, after
        hub.asked.clear()
        start = time.monotonic()
        assert call() == expected
        assert time.monotonic() - start < 5
        assert len(hub.asked) <= after + 2
        hub.heal()
        constants.HF_HUB_OFFLINE = False


@pytest.mark.parametrize("after", [1, 3, 5, 8])
def test_the_hub_fails_halfway(hub: HubServer, model: str, data: str, after: int) -> None:
    for call in (lambda: load(model), lambda: read(data)):
        hub.fault, hub.after = "drop", after
        assert "disconnected" in refused(call, HubError)
        hub.heal()
        constants.HF_HUB_OFFLINE = False
        assert call()


def test_one_lost_request_is_repeated(hub: HubServer, model: str, data: str) -> None:
    for call, times in ((lambda: load(model), 1), (lambda: read(data), 1)):
        hub.fault, hub.after, hub.times = "drop", 2, times
        assert call()
        hub.heal()


def test_a_long_download_is_resumed(
    hub: HubServer, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.fault, hub.faulty, hub.after, hub.times = "cut", "model.safetensors", 1, 3  # after HEAD
    assert load(model)
    assert sum("GET" in request and "safetensors" in request for request in hub.asked) == 4


def test_a_download_that_breaks_off(hub: HubServer, model: str, data: str) -> None:
    hub.fault, hub.faulty = "cut", "model.safetensors"
    assert "peer closed connection" in refused(lambda: load(model), HubError)
    constants.HF_HUB_OFFLINE = False
    hub.faulty = "train.csv"
    assert "peer closed connection" in refused(lambda: read(data), HubError)


def test_offline_mode(hub: HubServer, model: str, data: str) -> None:
    constants.HF_HUB_OFFLINE = True
    for call in (lambda: load(model), lambda: read(data)):
        assert "HF_HUB_OFFLINE" in refused(call, HubError)
    assert hub.asked == []


def test_the_commit_is_recorded(hub: HubServer, model: str, toy: MakeConfig) -> None:
    config = toy("masked", f"model.path={model}", "model.revision=v1.0")
    record = run(config)
    assert record is not None
    assert record.backbone.commit == COMMIT


def config_of(model: str, *overrides: str) -> Config:
    return configured("model=local", f"model.path={model}", "data.max_length=64", *overrides)


def test_a_dry_run_tells(hub: HubServer, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    for path, revision, where in (("tiny/no", "null", "path"), (model, "v9", "revision")):
        config = config_of(path, f"model.revision={revision}")
        assert problem_of(lambda: dry_run(config)).where == f"model.{where}"  # noqa: B023
    hub.fault = 503
    dry_run(config_of(model))
    assert "Skipped because the Hugging Face Hub is unreachable" in capsys.readouterr().out
