"""log.txt in the folder of a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lpt.runs.run_dir import LOG_FILE, is_global_zero


class _LogFile(logging.FileHandler):
    """A log file whose loss is reported once; the run continues."""

    lost = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Called by logging when a record cannot be written."""
        if not self.lost:
            self.lost = True
            with suppress(OSError):  # stderr may be on the same disk
                sys.stderr.write(f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}\n")


@contextmanager
def log_to(run_dir: Path) -> Iterator[None]:
    """Copy log records, warnings and the exception that ends the block to log.txt; on rank 0."""
    if not is_global_zero():
        yield
        return
    handler = _LogFile(run_dir / LOG_FILE, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("lpt", "lightning.pytorch", "py.warnings")]
    logging.captureWarnings(True)
    logging.getLogger("lpt").setLevel(logging.DEBUG)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    except Exception:
        logging.getLogger("lpt").debug("The run failed:", exc_info=True)
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        with suppress(OSError):  # was reported when it could not be written
            handler.close()
        logging.captureWarnings(False)
