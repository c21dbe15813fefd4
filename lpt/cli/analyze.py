"""Look at the errors of a finished run, or of two on the same examples, and at its late prompt.

    lpt-analyze RUN [RUN] [--set dev] [--out OUT]

writes a page with confusion matrix, precision, recall and F1 of each label, calibration and the
most confident errors; of two runs, McNemar's test and a paired bootstrap interval; of a late
prompt, its nearest words, the similarity of its slots, its spread by class and the attention to it.
OUT is RUN/analysis by default.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lpt.config.extras import check_extra
from lpt.errors import FAILURE, USAGE_ERROR, ConfigError, Problems
from lpt.runs.run_dir import ANALYSIS


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 if the page is written, 1 if it cannot be, 2 if a run cannot be used."""
    parser = argparse.ArgumentParser(
        prog="lpt-analyze",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="one or two runs")
    parser.add_argument("--out", type=Path, help="folder of the page")
    parser.add_argument("--set", default="test", help="dev, test or an extra evaluation set")
    parser.add_argument("--model", help="folder or hub id of the backbone, if it has moved")
    text = "leave the late prompt out: no model is loaded"
    parser.add_argument("--no-prompts", action="store_true", help=text)
    chosen = parser.parse_args(arguments)
    if len(chosen.runs) > 2:
        parser.error("one or two runs")
    out = chosen.out if chosen.out is not None else chosen.runs[0] / ANALYSIS
    problems = Problems()
    try:
        check_extra("report", "analyze", problems)
        problems.raise_if_any()
        from lpt.report.analysis import analyze

        prompts = not chosen.no_prompts
        page, sentences = analyze(
            chosen.runs, out, set_name=chosen.set, prompts=prompts, model=chosen.model
        )
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    except OSError as error:
        sys.stderr.write(f"{error.filename or out}: {error.strerror or error}\n")
        return FAILURE
    sys.stdout.write("\n".join([*sentences, str(page)]) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
