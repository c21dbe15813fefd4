"""log.txt in the folder of a run."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

from lpt.runs.log_file import log_to


@pytest.mark.filterwarnings("default:A Python warning")
def test_log_file_gets_warnings_until_the_run_ends(tmp_path: Path) -> None:
    shown = warnings.showwarning
    with log_to(tmp_path):
        logging.getLogger("lpt.training.callbacks.dev_history").warning(
            "All predictions are one class."
        )
        logging.getLogger("lightning.pytorch.trainer").error("Something of Lightning's.")
        logging.getLogger("elsewhere").error("Not of this run.")
        warnings.warn("A Python warning.", stacklevel=1)
    logging.getLogger("lpt.training.callbacks.dev_history").warning("After the run.")
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "WARNING lpt.training.callbacks.dev_history: All predictions are one class." in log
    assert "Something of Lightning's." in log
    assert "UserWarning: A Python warning." in log
    assert "Not of this run." not in log
    assert "After the run." not in log
    assert warnings.showwarning is shown


def test_other_ranks_do_not_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with log_to(tmp_path):
        logging.getLogger("lpt.training.module").warning("of rank 1")
    assert not list(tmp_path.iterdir())
