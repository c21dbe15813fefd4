"""What a run writes besides checkpoints and curves."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from lpt.config.resolve import to_dict
from lpt.config.schema import Config
from lpt.data.eval_output import prediction_columns
from lpt.data.examples import UNKNOWN
from lpt.data.split_file import SPLIT_FILE
from lpt.files import write_atomically
from lpt.methods.late_prompt import LatePrompt
from lpt.runs.adapter import save_adapter
from lpt.runs.predictions import write_predictions
from lpt.runs.record import RunRecord
from lpt.runs.run_dir import ADAPTER, CONFIG_FILE, is_global_zero
from lpt.tracking.loggers import log_results
from lpt.training.plan import Plan
from lpt.training.results import Outcome

logger = logging.getLogger(__name__)


def save_config(config: Config, split_description: Mapping[str, Any], run_dir: Path) -> None:
    """Write config.yaml and split.json, which a run to be resumed is compared with; on rank 0.

    Raises:
        OSError: A file cannot be written.
    """
    logger.debug("%s", config)
    if is_global_zero():
        text = OmegaConf.to_yaml(to_dict(config))
        write_atomically(run_dir / SPLIT_FILE, json.dumps(split_description) + "\n")
        write_atomically(run_dir / CONFIG_FILE, text)


def save_outputs(
    plan: Plan, outcome: Outcome, record: RunRecord, model: LatePrompt, loggers: Iterable[Logger]
) -> None:
    """Write adapter and predictions, log the results, and write metrics.json last.

    `model` holds the best checkpoint.

    Raises:
        OSError: A file cannot be written.
    """
    config, task, run_dir = plan.config, plan.task, Path(record.run_dir)
    save_adapter(model, run_dir / ADAPTER, outcome.backbone, config, task)
    tables = {}
    for name, output in outcome.outputs.items():
        write_predictions(run_dir, name, prediction_columns(output, task))
        tables[name] = prediction_columns(output, task, texts=True)
        unlabelled = output.examples.labels.count(UNKNOWN)
        if unlabelled:
            logger.warning(
                "%d of %d %s rows have no labels: %s was predicted, but not scored.",
                *(unlabelled, len(output.examples), name, name),
            )
    log_results(loggers, record, run_dir, tables)
    record.write(run_dir)
    logger.debug("finished: dev %s, test %s", record.dev, record.test)
