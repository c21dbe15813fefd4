"""A W&B workspace and a W&B report about the runs of a project, through wandb-workspaces.

Panels name only what a run or the summary of a sweep logs. W&B's packages are imported where they
are used: they are optional and slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from lpt.config.extras import check_extra
from lpt.errors import ConfigError, Problems, config_error, first_line
from lpt.tracking.wandb import SUMMARY_JOB

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.workspaces import Workspace

_GROUPED_BY = ("task.name", "model.name", "method.name", "prompt.kind")
"""Configuration keys; runs that agree in them are drawn as one line or bar."""
_LAYERS = ("prompt.layer", "method.layer")
_BY_LAYER = ("Score by cost", "Dev curves")
"""Sections of the report in which runs must agree in their layer, too."""
_BANDS = {"aggregate": True, "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
_COSTS = {
    "cost/train_seconds": "training time (s)",
    "cost/peak_memory_mb": "peak memory (MB)",
    "cost/trainable_parameters": "trainable parameters",
}
_LOOKED_AT = 200
"""Runs whose metrics are looked up."""


def sections(metrics: Sequence[str]) -> dict[str, list[Any]]:
    """The panels of the workspace and the report, by title of their section."""
    from wandb_workspaces.reports import v2 as wr

    sets = [(name, metric) for metric in metrics for name in ("test", "dev")]
    against_layer = [
        wr.LinePlot(
            title=f"{name} {metric} by layer (mean, standard deviation)",
            x="layer",
            y=[f"final/{name}/{metric}"],
            title_x="layer",
            **_BANDS,
        )
        for name, metric in sets
    ]
    against_method = [
        wr.BarPlot(
            title=f"{name} {metric} by method (mean, standard deviation)",
            metrics=[f"final/{name}/{metric}"],
            **_BANDS,
        )
        for name, metric in sets
    ]
    against_cost = [
        wr.ScatterPlot(
            title=f"test {metric} by {title}",
            x=wr.SummaryMetric(cost),
            y=wr.SummaryMetric(f"final/test/{metric}"),
            log_x=True,
        )
        for metric in metrics
        for cost, title in _COSTS.items()
    ]
    curves = [
        wr.LinePlot(
            title=f"dev {metric} over optimizer steps",
            x="trainer/global_step",
            y=[f"dev/{metric}"],
            title_x="step",
            **_BANDS,
        )
        for metric in metrics
    ]
    predictions = [
        wr.WeavePanelSummaryTable(table_name=f"predictions/{name}") for name in ("test", "dev")
    ]
    return {
        "Score by layer": against_layer,
        "Score by method": against_method,
        "Score by cost": against_cost,
        "Dev curves": curves,
        "Results of the sweep": [wr.WeavePanelSummaryTable(table_name="sweep/results")],
        "Predictions": predictions,
    }


def build_workspace(
    entity: str, project: str, metrics: Sequence[str], sweep: str | None
) -> Workspace:
    """The workspace: all runs, or those of a sweep, grouped by task, model and method."""
    from wandb_workspaces import workspaces as ws

    shown = ws.And(ws.Metric("Group") == sweep) if sweep else ""
    return ws.Workspace(
        entity=entity,
        project=project,
        name=_title(project, sweep),
        sections=[
            ws.Section(name=title, panels=panels, is_open=True)
            for title, panels in sections(metrics).items()
        ],
        runset_settings=ws.RunsetSettings(
            filters=shown, groupby=[ws.Config(key) for key in _GROUPED_BY]
        ),
    )


def build_report(entity: str, project: str, metrics: Sequence[str], sweep: str | None) -> Report:
    """The report: a heading and panels for each section of the workspace."""
    from wandb_workspaces import expr
    from wandb_workspaces.reports import v2 as wr

    shown = expr.And(expr.Metric("Group") == sweep) if sweep else ""
    blocks: list[Any] = []
    for title, panels in sections(metrics).items():
        table = any(isinstance(panel, wr.WeavePanelSummaryTable) for panel in panels)
        for position, panel in enumerate(panels):
            wide = wr.Layout(x=0, y=10 * position, w=24, h=10)
            half = wr.Layout(x=12 * (position % 2), y=8 * (position // 2), w=12, h=8)
            panel.layout = wide if table else half
        keys = (*_GROUPED_BY, *(_LAYERS if title in _BY_LAYER else ()))
        # Without an entity a set of runs is looked up in the project of the report.
        runs = wr.Runset(
            project=project,
            filters=shown,
            groupby=[] if table else [f"config.{key}" for key in keys],
        )
        blocks += [wr.H2(title), wr.PanelGrid(runsets=[runs], panels=panels)]
    title = _title(project, sweep)
    return wr.Report(entity=entity, project=project, title=title, blocks=blocks, width="fluid")


def _title(project: str, sweep: str | None) -> str:
    return f"lpt: {sweep or project}"


def publish(project: str, entity: str | None, sweep: str | None) -> tuple[str, str]:
    """Save the workspace and the report; returns their addresses.

    The saving itself has not been tried against W&B's server.

    Raises:
        ConfigError: A package or the key is missing, or there are no such runs, or W&B refuses.
    """
    problems = Problems()
    check_extra("dashboard", "lpt-dashboard", problems)
    problems.raise_if_any()
    import wandb

    try:
        if not wandb.login(prompt=False, verify=False):
            expected = "`wandb login`, or WANDB_API_KEY"
            raise config_error("W&B", "not logged in: no key was found", expected)
        api = wandb.Api()
        entity = entity or api.default_entity
        metrics = _logged_metrics(api, f"{entity}/{project}", sweep)
        workspace = build_workspace(entity, project, metrics, sweep)
        report = build_report(entity, project, metrics, sweep)
        workspace, report = workspace.save(), report.save()
    except ConfigError:  # a ValueError
        raise
    except (wandb.Error, ValueError, OSError) as error:
        raise config_error("W&B", f"refuses {project}: {first_line(error)}") from error
    return workspace.url, report.url


def _logged_metrics(api: Any, path: str, sweep: str | None) -> list[str]:
    """Metrics of the tasks of the finished runs, the newest first."""
    wanted = {"state": "finished", "jobType": {"$ne": SUMMARY_JOB}}
    if sweep:
        wanted["group"] = sweep
    runs = islice(api.runs(path, filters=wanted, order="-created_at", lazy=False), _LOOKED_AT)
    tasks = [run.config.get("task") for run in runs]
    metrics = dict.fromkeys(task["metric"] for task in tasks if isinstance(task, dict))
    if not metrics:
        where, given = ("--sweep", f"{sweep} of {path}") if sweep else ("--project", path)
        expected = "finished runs of lpt-train or lpt-sweep with logger=wandb"
        hint = "upload offline runs: wandb sync (docs/tracking.md)"
        raise config_error(where, f"{given} has no finished runs", expected, hint)
    return list(metrics)
