"""Settings and fixtures for all tests."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from hydra.core.hydra_config import HydraConfig
from hypothesis import settings
from lightning import Callback
from lightning.pytorch.callbacks import LambdaCallback

from lpt.config.schema import Config
from lpt.models import hub_access
from tests.support import plugin
from tests.support.configs import configured
from tests.support.hub_server import SERVER, HubServer
from tests.support.tiny import save_tiny
from tests.support.tokenizers import causal, wordpiece

# The models are tiny and the tests run in parallel: more threads would only wait for each other.
torch.set_num_threads(1)

# Nothing is read from or left in the user's own cache.
os.environ["LPT_CACHE"] = tempfile.mkdtemp(prefix="lpt-tests-")
atexit.register(shutil.rmtree, os.environ["LPT_CACHE"], ignore_errors=True)

# The suite tries the same inputs each time; `pytest --hypothesis-profile=fuzz` looks for new ones.
settings.register_profile("suite", deadline=None, max_examples=50, derandomize=True, database=None)
settings.register_profile("fuzz", deadline=None, max_examples=2000)
settings.load_profile("suite")

MakeConfig = Callable[..., Config]
BeforeStep = Callable[[int, Callable[[], object]], None]


@pytest.fixture(autouse=True)
def no_hydra_config() -> Iterator[None]:
    """Hydra keeps the configuration of its last main in a singleton: none for the next test."""
    yield
    HydraConfig.instance().cfg = None


@pytest.fixture(autouse=True)
def hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a test gave up the Hub, which a process does for good, does not concern the next one."""
    monkeypatch.setattr(hub_access, "_failures", [])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE)
    monkeypatch.setenv("HF_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))


@pytest.fixture(scope="session")
def started() -> HubServer:
    """The stand-in for the Hub, answering."""
    SERVER.start()
    return SERVER


@pytest.fixture
def hub(started: HubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The Hub, for a process that has not asked it yet; times are shorter than in use."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_access, "_TIMEOUT_S", 0.5)
    monkeypatch.setattr(hub_access, "_PAUSE_S", 0.1)
    yield started
    started.heal()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with a tiny masked (BERT) and a tiny causal (Llama) model and their tokenizers."""
    folder = tmp_path_factory.mktemp("checkpoints")
    save_tiny(folder / "masked", "bert", wordpiece())
    save_tiny(folder / "causal", "llama", causal())
    return {kind: folder / kind for kind in ("masked", "causal")}


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task that a tiny random model can learn: `label<TAB>text`, the text says good or bad."""
    folder = tmp_path_factory.mktemp("toy")
    nouns = ("film", "food", "room", "plot", "cast", "day", "people", "they")
    extras = ("", "and", "it was", "the", "no one asked", "a", "but", "are")
    rows = [
        f"{label}\tthe {noun} {word} {extra}".rstrip()
        for noun in nouns
        for extra in extras
        for label, word in enumerate(("bad", "good"))
    ]
    random.Random(0).shuffle(rows)
    for split, part in (("train", rows[:80]), ("dev", rows[80:104]), ("test", rows[104:])):
        (folder / f"{split}.tsv").write_text("\n".join(part) + "\n", encoding="utf-8")
    return folder


def toy_overrides(checkpoints: dict[str, Path], data: Path, model: str, *more: str) -> list[str]:
    """A short run on the toy data, or as `more` has it; `model` is masked or causal."""
    toy = [
        "model=local",
        f"model.path={checkpoints[model]}",
        "task=reviews",
        f"data.path={data}",
        "task.labels=['0','1']",
        'task.template="{text} It was ' + ("<mask>" if model == "masked" else "{word}") + ' ."',
        "prompt.layer=3",
        "data.batch_size=16",
        "data.max_length=64",
        "trainer.max_steps=4",
        "trainer.eval_every_steps=2",
        "strategy.accelerator=cpu",
    ]
    changed = {text.partition("=")[0] for text in more}
    return [text for text in toy if text.partition("=")[0] not in changed] + [*more]


@pytest.fixture
def toy(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> MakeConfig:
    """See `toy_overrides`; in a folder of the test."""

    def make(model: str = "masked", *overrides: str) -> Config:
        where = f"run_dir={tmp_path / 'run'}"
        return configured(*toy_overrides(checkpoints, toy_data, model, where, *overrides))

    return make


@pytest.fixture
def callbacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callback]]:
    """Callbacks of every trainer, as a plugin of Lightning adds them: what happens in a run."""
    monkeypatch.syspath_prepend(plugin.install(tmp_path / "plugin"))
    yield plugin.CALLBACKS
    plugin.CALLBACKS.clear()


@pytest.fixture
def before_step(callbacks: list[Callback]) -> BeforeStep:
    """Have something happen in front of an optimizer step, once."""

    def plan(step: int, event: Callable[[], object]) -> None:
        events: Iterator[Callable[[], object]] = iter([event])

        def happen(trainer: Any, *_: Any) -> None:
            if trainer.global_step == step:
                next(events, lambda: None)()

        callbacks.append(LambdaCallback(on_before_optimizer_step=happen))

    return plan


@pytest.fixture
def wandb_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home of a user with nothing of W&B; its service ends with the test."""
    import wandb  # slow

    for name in [name for name in os.environ if name.startswith("WANDB_") or name == "NETRC"]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    wandb.teardown()
