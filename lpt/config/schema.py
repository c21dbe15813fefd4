"""The typed schema under `conf/`: one dataclass a group, each field with its meaning and unit.

Hydra merges the YAML groups onto these classes, so a wrong type or an unknown key is refused.
Allowed values and ranges stand in each field's metadata (`lpt.config.constraints`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lpt.config.constraints import limited
from lpt.config.task_schema import DataConfig, TaskConfig
from lpt.errors import Problems, config_error

PACKAGE_DIR = Path(__file__).resolve().parents[1]
CONF_DIR = PACKAGE_DIR.parent / "conf"


@dataclass
class ModelConfig:
    """The frozen backbone."""

    name: str = ""
    """Short name for reports and folder names; empty: the last part of `path`."""
    path: str | None = MISSING
    """Local folder or hub id of a transformers checkpoint; null with `package`."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    package: str | None = None
    """Installed Python package whose folder holds the checkpoint; it is located, never imported."""
    gguf_file: str | None = None
    """File name of a GGUF checkpoint inside the folder."""
    layers: int | None = limited(None, ge=1)
    """Depth L, so that prompt.layer is checked before any download; null: read from the model."""
    dtype: str = limited("float32", choices=("float32", "bfloat16", "float16"))
    """Type of the frozen weights; the prompt is always float32."""
    dropout: str = limited("above", choices=("above", "all", "none"))
    """Which frozen layers drop out while training: those above the prompt, all (as the reference
    release does), or none. The prompt's own dropout is `prompt.dropout`."""
    attention: str | None = limited(None, choices=("sdpa", "eager", "flash_attention_2"))
    """Attention implementation; null: what transformers picks for the model, mostly sdpa, but eager
    in half precision on a CPU with texts of at most 256 tokens, which is faster there."""


@dataclass
class PromptConfig:
    """The trainable part: what makes the prompt, and where it enters."""

    kind: str = limited(MISSING, choices=("npg", "mppg", "appg", "static"))
    """npg, mppg, appg: naive, max-pooling, average-pooling generator; static: free vectors."""
    layer: int | None = limited(None, ge=1)
    """First layer that sees the prompt, 1-based as in the paper; null: L // 2 + 1, the paper's."""
    length: int = limited(5, ge=1)
    """Prompt vectors m."""
    bottleneck: int | None = limited(None, ge=1)
    """Width d' inside a generator; null for static."""
    dropout: float | None = limited(None, ge=0.0, lt=1.0)
    """Dropout rate on the finished prompt; null: the backbone's hidden dropout."""
    init: str | None = limited(None, choices=("normal", "vocab"))
    """Start of a static prompt: N(0, 0.02) or embeddings of words; null for generators."""
    lr: float = limited(MISSING, gt=0.0)
    """Learning rate suited to this kind of prompt; `optim.lr` takes it over (docs/defaults.md)."""


@dataclass
class CacheConfig:
    """Keeping the hidden states in front of the prompt, which never change."""

    mode: str = limited("auto", choices=("auto", "on", "off"))
    """auto: where it helps and fits, not for less than a quarter of a pass over the training set;
    on: always, and an error where it cannot; off: never."""
    dir: str | None = None
    """Folder of the entries; null: $LPT_CACHE/hidden, or lpt/hidden in the user's cache folder."""
    max_gb: float = limited(20.0, gt=0.0)
    """Size of all entries in GB; the ones unused for longest are removed first."""
    memory_gb: float = limited(2.0, ge=0.0)
    """Hidden states up to this size are held in memory, on the GPU if there is one, train first;
    what is larger is read from disk as batches need it."""
    layers: list[int] = field(default_factory=list)
    """Layers besides prompt.layer whose entries are made in the same pass, for a layer sweep."""
    release_lower: bool = True
    """Drop the lower stack from memory when everything it would read is cached."""


@dataclass
class OptimConfig:
    """AdamW and its schedule."""

    lr: float = limited(MISSING, gt=0.0)
    """Peak learning rate."""
    weight_decay: float = limited(0.1, ge=0.0)
    """Decoupled weight decay; biases, norms and free prompt vectors are exempt."""
    warmup_ratio: float = limited(0.06, ge=0.0, le=1.0)
    """Share of the steps over which the rate rises linearly from 0."""
    schedule: str = limited("linear", choices=("linear", "constant"))
    """What follows the warm-up: linear decay to 0, or nothing."""
    eps: float = limited(1e-8, gt=0.0)
    """AdamW's epsilon."""
    gradient_clip_val: float | None = limited(1.0, gt=0.0)
    """Largest norm of the gradient; null: no clipping."""


@dataclass
class TrainerConfig:
    """How long to train, when to look, in which precision."""

    max_steps: int | None = limited(None, ge=1)
    """Optimizer steps; exactly one of max_steps and max_epochs is set."""
    max_epochs: int | None = limited(None, ge=1)
    """Passes over the training set."""
    eval_every_steps: int | None = limited(None, ge=1)
    """Optimizer steps between dev evaluations; exactly one of the two intervals is set."""
    eval_every_epochs: int | None = limited(None, ge=1)
    """Epochs between dev evaluations; needs max_epochs."""
    accumulate_grad_batches: int = limited(1, ge=1)
    """Batches a step."""
    patience: int | None = limited(None, ge=1)
    """Stop after so many evaluations without a better dev score; null: train to the end."""
    precision: str = limited("32-true", choices=("32-true", "bf16-mixed", "16-mixed"))
    """Arithmetic; mixed keeps the prompt's parameters in float32."""
    compile: bool = False
    """torch.compile for the layers above the prompt: slow first steps, faster ones after that."""
    gradient_checkpointing: bool = False
    """Compute the activations above the prompt twice instead of keeping them: less memory."""
    deterministic: bool = False
    """Refuse operations whose result differs between runs on a GPU, slower where there are others;
    on a CPU nothing differs anyway."""
    num_sanity_val_steps: int = limited(0, ge=0)
    """Dev batches that Lightning evaluates before training. The zero-shot scores, which every run
    begins with, have gone the same way already."""


@dataclass
class StrategyConfig:
    """Devices and how they share the work."""

    name: str = limited("single", choices=("single", "ddp", "fsdp"))
    """single: one device; ddp: a copy of the model each; fsdp: frozen weights sharded."""
    accelerator: str = limited("auto", choices=("auto", "cpu", "gpu"))
    """Kind of device."""
    devices: int = limited(1, ge=1)
    """Devices a node."""
    num_nodes: int = limited(1, ge=1)
    """Nodes."""


@dataclass
class WandbConfig:
    """Weights & Biases."""

    enabled: bool = False
    """Log this run."""
    mode: str = limited("online", choices=("online", "offline"))
    """offline: write files in the run folder, to be sent later with `wandb sync`."""
    project: str = "lpt"
    """Project the run belongs to."""
    entity: str | None = None
    """User or team; null: the default of the account."""
    group: str | None = None
    """Group of the run, e.g. a sweep."""
    job_type: str = "run"
    """Kind of run within its group; the summary of a sweep is a sweep-summary."""
    tags: list[str] = field(default_factory=list)
    """Tags of the run."""


@dataclass
class LoggerConfig:
    """Where curves go; any number at once (`logger=[csv,wandb]`)."""

    csv: bool = False
    """`csv/metrics.csv` in the run folder."""
    tensorboard: bool = False
    """Event files in the run folder."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases."""


@dataclass
class SweepConfig:
    """A multirun: `python sweep.py sweep=layers`, or `python train.py -m key=a,b`."""

    name: str = ""
    """Name of the sweep, for its folder and report; empty: that of its file."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Key or group -> value, for all jobs; the command line wins."""
    space: dict[str, Any] = field(default_factory=dict)
    """Key or group -> its values: a list, or text as on the command line (`2,5,9`, `range(2,24)`,
    `all` layers); the command line wins."""
    trials: int | None = limited(None, ge=1)
    """Search the space with so many trials of Optuna; null: try every combination."""
    prune: bool = True
    """In a search, end runs early whose dev scores are in the worst quarter."""
    jobs: int | None = limited(None, ge=1)
    """Jobs at a time on this machine; null: one for each GPU (or group of strategy.devices), one on
    the CPU."""
    retry: bool = True
    """When the sweep is started again, run the jobs again that failed; not those of a search."""
    dir: str | None = None
    """Folder of the sweep; null: one under runs/, the same for the same command."""
    report: bool = True
    """Write report/index.html at the end."""


@dataclass
class Config:
    """A whole run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    data: DataConfig = field(default_factory=DataConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    loss: str | None = limited(None, choices=("vocabulary", "label_words"))
    """Cross-entropy over the whole vocabulary (as the reference) or over the label words only;
    null: vocabulary, but label_words for a number, whose target is a share of two words."""
    seed: int = limited(13, ge=0)
    """Seed of initialisation, order and dropout."""
    run_dir: str | None = None
    """Folder of this run; null: a new one under runs/."""
    resume: str | None = None
    """auto: go on with the run in run_dir if one was begun there; a run's folder: with that one."""
    overwrite: bool = False
    """Replace what a run left in run_dir before."""
    dry_run: bool = False
    """Print the resolved config, check everything that can be checked, and stop."""


def register() -> None:
    """Make the schema and the `lpt.package` resolver known to Hydra.

    `${lpt.package:data/demo}` is the absolute path of a folder inside the lpt package.
    """
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver(
        "lpt.package", lambda relative: str(PACKAGE_DIR / relative), replace=True
    )


def typed(composed: DictConfig) -> Config:
    """What Hydra composed as dataclasses.

    Raises:
        ConfigError: A value is missing or cannot be resolved.
    """
    problems = Problems()
    for key in sorted(OmegaConf.missing_keys(composed)):
        problems.add(
            key,
            "no value",
            "see lpt/config/schema.py and lpt/config/task_schema.py",
            f"give one: {key}=...",
        )
    problems.raise_if_any()
    try:
        return to_config(composed)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", None) or "configuration")
        raise config_error(
            key, str(error).splitlines()[0], "a value that can be resolved"
        ) from error


def to_config(composed: DictConfig) -> Config:
    """Resolve a composed Hydra config into plain dataclasses; raises omegaconf's errors."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    if not config.model.name:
        config.model.name = Path(config.model.path or config.model.package or "").name
    return config
