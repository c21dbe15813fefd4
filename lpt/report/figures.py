"""Which figures a report has: against each numeric key, by each other key, learning curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lpt.report.against import against
from lpt.report.curves import learning_curves
from lpt.report.dots import dots
from lpt.report.drawing import Picture, look
from lpt.report.settings import is_number
from lpt.report.study import Study


@dataclass(frozen=True)
class Gallery:
    """Pictures that belong together."""

    title: str
    pictures: tuple[Picture, ...]


def draw_all(study: Study, folder: Path) -> list[Gallery]:
    """Draw every figure that the runs have something for; the PNGs go into the folder."""
    with look():
        drawn = [Gallery(title, tuple(pictures)) for title, pictures in _planned(study, folder)]
    return [gallery for gallery in drawn if gallery.pictures]


def _planned(study: Study, folder: Path) -> Iterator[tuple[str, Iterator[Picture]]]:
    numeric = [key for key in study.keys.shown if _is_numeric(study, key)]
    for key in numeric:
        yield f"Against {key}", against(study, key, folder)
    for key in study.keys.shown:
        if key not in numeric:
            yield f"By {key}", dots(study, key, folder)
    yield "Learning curves", learning_curves(study, folder)


def _is_numeric(study: Study, key: str) -> bool:
    values = {setting[key] for setting in study.settings} - {None}
    return len(values) > 1 and all(map(is_number, values))
