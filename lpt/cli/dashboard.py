"""Make a W&B workspace and a W&B report about the runs of a project.

    lpt-dashboard --project PROJECT [--sweep NAME]

They show scores by layer, method and cost, dev curves, the results of sweeps and predictions. Their
addresses are printed. Every call makes new ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lpt.errors import USAGE_ERROR, ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 if both are saved, 2 if the input is wrong or W&B refuses."""
    parser = argparse.ArgumentParser(
        prog="lpt-dashboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--project", required=True, help="project: logger.wandb.project")
    parser.add_argument("--entity", help="user or team; else the default of the account")
    parser.add_argument("--sweep", metavar="NAME", help="only runs of this sweep (group)")
    chosen = parser.parse_args(arguments)
    from lpt.tracking.dashboard import publish  # slow to import

    try:
        addresses = publish(chosen.project, chosen.entity, chosen.sweep)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    sys.stdout.write("workspace: {}\nreport: {}\n".format(*addresses))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
