"""Predictions of a trained adapter: lpt-predict ADAPTER INPUT [--out FILE].

ADAPTER is the folder of a run or of an adapter, or a Hub id; INPUT a TSV, CSV, JSONL or parquet
file with the columns of the task, or - for standard input: a JSON object per line, or plain lines
for a task of one column. Each row gets its label and the probability of every label; where the
input has labels, the metrics of the task are printed as well.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lpt.errors import CTRL_C, FAILURE, USAGE_ERROR, ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 on success, 1 if the output cannot be written, 2 if something given is wrong."""
    options = _parser().parse_args(arguments)
    try:
        from lpt.cli.predict_rows import predict_rows  # after --help: torch takes seconds

        started = time.perf_counter()
        result = predict_rows(**vars(options))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    except KeyboardInterrupt:
        return CTRL_C
    except BrokenPipeError:  # as of `| head`; what is still buffered has no reader either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:
        sys.stderr.write(f"{error.filename or options.out}: {error.strerror or error}\n")
        return FAILURE
    seconds = time.perf_counter() - started
    lines = [f"{name} {value:.4f}" for name, value in result.metrics.items()]
    lines = [f"{line} ({_rows(result.labeled)} with labels)" for line in lines]
    speed = f"{result.rows / result.seconds:,.0f} a second, {seconds:.0f} s in all"
    lines.append(f"{_rows(result.rows)} to {options.out or 'standard output'}: {speed}")
    stream = sys.stderr if options.out is None else sys.stdout
    stream.write("".join(f"{line}\n" for line in lines))
    return 0


def _rows(count: int) -> str:
    return f"{count:,} row{'s' if count != 1 else ''}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lpt-predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("adapter", help="folder of a run or adapter, or owner/name[@REVISION]")
    parser.add_argument("input", help="file of rows, or -")
    parser.add_argument("--out", type=Path, help="TSV, CSV or JSONL file; default: TSV to stdout")
    parser.add_argument("--model", help="folder or Hub id of the backbone, if it is elsewhere")
    parser.add_argument("--device", default="cpu", help="as torch names it: cpu, cuda, cuda:1")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16; default: as in training")
    parser.add_argument("--batch-size", type=int, default=32, help="rows per batch (32)")
    parser.add_argument(
        "--label-column", help="column of the labels, by default the task's; '' to read none"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
