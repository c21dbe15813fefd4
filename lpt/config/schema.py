"""The typed schema under `conf/`: one dataclass per group, each field described.

Hydra merges the YAML groups into these classes and rejects wrong types and unknown keys. Allowed
values and ranges are in the metadata of a field, checked by `lpt.config.validation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from lpt.config.method_schema import MethodConfig, PromptConfig
from lpt.config.task_schema import MAX_SEED, DataConfig, TaskConfig, limited

PACKAGE_DIR = Path(__file__).resolve().parents[1]
# In an installed package, conf/ lies inside it (pyproject.toml); in the clone, beside it.
CONF_DIR = next(p for p in (PACKAGE_DIR / "conf", PACKAGE_DIR.parent / "conf") if p.is_dir())


@dataclass
class ModelConfig:
    """The backbone."""

    name: str = ""
    """Short name for reports and folder names; empty: the last component of `path`."""
    path: str | None = MISSING
    """Local folder or Hugging Face Hub id of a transformers checkpoint; null with `package`."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    package: str | None = None
    """Installed Python package whose folder contains the checkpoint; located, never imported."""
    gguf_file: str | None = None
    """File name of a GGUF checkpoint in that folder."""
    layers: int | None = limited(None, ge=1)
    """Number of layers L, to check the layer before any download; null: read from the model."""
    dtype: str = limited("float32", choices=("float32", "bfloat16", "float16"))
    """Dtype of the frozen weights; what trains is always float32."""
    dropout: str = limited("above", choices=("above", "all", "none"))
    """Layers with active dropout in training: those from the first layer of the method on, all (as
    the reference implementation), or none. That of a prompt itself is `prompt.dropout`."""
    attention: str | None = limited(None, choices=("sdpa", "eager", "flash_attention_2"))
    """Attention implementation; null: the default of transformers for the model, mostly sdpa, but
    eager in half precision on a CPU with texts of at most 256 tokens, where it is faster."""


@dataclass
class CacheConfig:
    """Cache of the hidden states below the method, which training does not change."""

    mode: str = limited("auto", choices=("auto", "on", "off"))
    """auto: where it pays off and fits, not for less than a quarter of an epoch; on: always, an
    error where it is impossible; off: never."""
    dir: str | None = None
    """Folder of the cache; null: $LPT_CACHE/hidden, or lpt/hidden in the user's cache folder."""
    max_gb: float = limited(20.0, gt=0.0)
    """Maximum size of the cache in GB (10^9 bytes); the least recently used entries go first."""
    memory_gb: float = limited(2.0, ge=0.0)
    """Hidden states up to this size in GB (10^9 bytes) are loaded into memory, of the GPU if there
    is one, train first; the rest is read from disk batch by batch."""
    layers: list[int] = field(default_factory=list)
    """Further layers that the same pass precomputes, for a layer sweep."""
    release_lower: bool = True
    """Free the memory of the lower layers once all their outputs are cached."""


@dataclass
class OptimConfig:
    """AdamW and its schedule."""

    lr: float = limited(MISSING, gt=0.0)
    """Peak learning rate."""
    weight_decay: float = limited(0.1, ge=0.0)
    """Decoupled weight decay; not applied to biases, norms and static prompts."""
    warmup_ratio: float = limited(0.06, ge=0.0, le=1.0)
    """Fraction of the optimizer steps with linear warm-up from 0."""
    schedule: str = limited("linear", choices=("linear", "constant"))
    """After the warm-up: linear decay to 0, or constant."""
    eps: float = limited(1e-8, gt=0.0)
    """Epsilon of AdamW."""
    gradient_clip_val: float | None = limited(1.0, gt=0.0)
    """Maximum gradient norm; null: no clipping."""


@dataclass
class TrainerConfig:
    """Length of the training, evaluation interval, precision."""

    max_steps: int | None = limited(None, ge=1)
    """Optimizer steps; exactly one of max_steps and max_epochs is set."""
    max_epochs: int | None = limited(None, ge=1)
    """Epochs: passes over the training set."""
    eval_every_steps: int | None = limited(None, ge=1)
    """Optimizer steps between dev evaluations; the last step is always evaluated. null: a tenth of
    max_steps, at most 100."""
    eval_every_epochs: int | None = limited(None, ge=1)
    """Epochs between dev evaluations instead, with max_epochs; the last one is always evaluated.
    null: each epoch, unless eval_every_steps is set."""
    accumulate_grad_batches: int = limited(1, ge=1)
    """Batches per optimizer step, whose gradient and loss are means over all their examples; the
    last step of an epoch may have fewer batches."""
    patience: int | None = limited(None, ge=1)
    """Early stopping: evaluations without a better dev score; null: train to the end."""
    precision: str = limited("32-true", choices=("32-true", "bf16-mixed", "16-mixed"))
    """Precision of Lightning; mixed keeps the trainable parameters in float32."""
    compile: bool = False
    """torch.compile for the layers above the split: slow first steps, faster ones later."""
    gradient_checkpointing: bool = False
    """Recompute the activations above the split in the backward pass, to save memory."""
    deterministic: bool = False
    """Deterministic algorithms only, an error where there is none; slower on a GPU, no effect on a
    CPU."""
    num_sanity_val_steps: int = limited(0, ge=0)
    """Dev batches that Lightning evaluates before training; every run starts with the zero-shot
    scores, which check the same code."""


@dataclass
class StrategyConfig:
    """Devices and distributed strategy."""

    name: str = limited("single", choices=("single", "ddp", "fsdp"))
    """single: one device; ddp: a replica per device; fsdp: sharded frozen weights."""
    accelerator: str = limited("auto", choices=("auto", "cpu", "gpu"))
    """Type of device."""
    devices: int = limited(1, ge=1)
    """Devices per node."""
    num_nodes: int = limited(1, ge=1)
    """Number of nodes."""


@dataclass
class WandbConfig:
    """Weights & Biases."""

    enabled: bool = False
    """Log this run."""
    mode: str | None = limited(None, choices=("online", "offline"))
    """offline: write files in the run folder, to be uploaded later with `wandb sync`; null: as
    WANDB_MODE in the environment says, online by default."""
    project: str = "lpt"
    """Project of the run."""
    entity: str | None = None
    """User or team; null: the default of the account."""
    group: str | None = None
    """Group of the run, e.g. a sweep."""
    job_type: str = "run"
    """Job type of the run; the summary of a sweep has sweep-summary."""
    tags: list[str] = field(default_factory=list)
    """Tags of the run."""


@dataclass
class LoggerConfig:
    """Loggers of the learning curves; any number of them (`logger=[csv,wandb]`)."""

    csv: bool = False
    """`csv/version_N/metrics.csv` in the run folder, a new version for each start."""
    tensorboard: bool = False
    """Write TensorBoard event files to the run folder."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases."""


@dataclass
class SweepConfig:
    """A multirun: `python sweep.py sweep=layers`, or `python train.py -m key=a,b`."""

    name: str = ""
    """Name of the sweep, for its folder and report; empty: the name of its config file."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Key or group -> value of all jobs; the command line takes precedence."""
    space: dict[str, Any] = field(default_factory=dict)
    """Key or group -> its values: a list, or text as on the command line (`2,5,9`, `range(2,24)`,
    `all` layers); the command line takes precedence."""
    settings: list[dict[str, Any]] = field(default_factory=list)
    """Settings of several keys or groups that vary together, crossed with the space:
    `[{prompt: static, prompt.layer: 1}, {prompt: mppg}]`."""
    exclude: list[dict[str, Any]] = field(default_factory=list)
    """Combinations to leave out: jobs with all values of an entry, as `[{method: bitfit}]`."""
    trials: int | None = limited(None, ge=1)
    """Number of Optuna trials of a search; null: a grid of all combinations."""
    prune: bool = True
    """In a search, stop runs early whose dev scores are in the worst quarter."""
    jobs: int | None = limited(None, ge=1)
    """Concurrent jobs on this machine; null: one per GPU (or group of strategy.devices), one on a
    CPU."""
    retry: bool = True
    """Rerun failed jobs when the sweep is started again; not in a search."""
    dir: str | None = None
    """Folder of the sweep; null: a folder in runs/, the same for the same command."""
    report: bool = True
    """Write report/index.html when the sweep ends."""


@dataclass
class Config:
    """The configuration of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    prompt: PromptConfig | None = field(default_factory=PromptConfig)
    data: DataConfig = field(default_factory=DataConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    loss: str | None = limited(None, choices=("vocabulary", "label_words"))
    """Cross-entropy over the whole vocabulary (as the reference implementation) or over the label
    words only; null: vocabulary, but label_words for regression."""
    seed: int = limited(13, ge=0, le=MAX_SEED)
    """Seed of initialization, batch order and dropout."""
    run_dir: str | None = None
    """Folder of the run; null: a new folder in runs/."""
    resume: str | None = None
    """auto: resume the run in run_dir, or start it if there is none; FOLDER: resume that run."""
    overwrite: bool = False
    """Replace an earlier run in run_dir."""
    dry_run: bool = False
    """Check everything without loading weights, print the resolved configuration, and stop."""

    @staticmethod
    def compose(settings: Mapping[str, Any]) -> Config:
        """The configuration with these settings, and the defaults of the command line otherwise.

        Args:
            settings: Values by key, choices by group, as on the command line:
                `{"model": "roberta-large", "data": "kshot", "data.k": 32}`.

        Raises:
            ConfigError: An unknown key or choice, a value of the wrong type, or a missing value.
        """
        from lpt.config.compose import compose_settings  # which knows this schema

        return compose_settings(settings)


def first_layer(config: Config) -> int | None:
    """First layer that the method changes, 1-based; None: a default that depends on the depth."""
    if config.method.name == "late_prompt":
        prompt = config.prompt or PromptConfig()
        layer = min(prompt.layers, default=prompt.layer)
        return config.method.layer if layer is None else layer
    return config.method.layer if config.method.name == "head" else config.method.layer or 1


def at_layer(config: Config, layer: int | None) -> Config:
    """The configuration with another first layer; None: the default, which fits every backbone."""
    prompt = config.prompt and replace(config.prompt, layer=None, layers=[])
    return replace(config, method=replace(config.method, layer=layer), prompt=prompt)


def with_model_name(config: Config) -> Config:
    """The configuration with the default of `model.name` filled in."""
    model = config.model
    name = model.name or Path(model.path or model.package or "").name
    return replace(config, model=replace(model, name=name))
