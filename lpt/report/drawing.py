"""How figures look: one small size for phones and print, colours and markers told apart in grey."""

from __future__ import annotations

import io
import itertools
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from lpt.report.settings import tidy
from lpt.report.statistics import Estimate
from lpt.report.study import Task

INK, SOFT, FAINT = "#1f2328", "#6b7280", "#d4d7dc"
# Okabe and Ito's colours, which people with any kind of colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
_WIDTH = 3.9  # inches: unscaled, it fits a phone and a column of a paper
_LONGEST = 44  # characters in one line of the legend
_LABEL_SHARE = 0.07  # of the axis, that a label takes
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_LOOK = {
    "svg.fonttype": "none",  # text stays text: found, read aloud, in the page's font
    "text.parse_math": False,  # names are no formulas
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceef1",
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.2,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}


@dataclass(frozen=True)
class Picture:
    """A finished figure.

    Attributes:
        name: Of its PNG file, without the suffix.
        title: What it shows, in a few words.
        caption: How to read it.
        svg: The picture as an element of the page.
    """

    name: str
    title: str
    caption: str
    svg: str


@dataclass
class Plot:
    """Axes to draw on, and what the legend says of what was drawn."""

    figure: Any
    axes: Any
    legend: list[tuple[Any, str]]

    def note(self, handle: Any, label: str) -> None:
        """Put something into the legend, once."""
        short = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
        # Matplotlib leaves out what begins with an underscore.
        short = f" {short}" if short.startswith("_") else short
        if short not in [known for _, known in self.legend]:
            self.legend.append((handle, short))

    def finish(self, folder: Path, name: str, title: str, caption: str) -> Picture:
        """Write the PNG and make the picture."""
        if self.legend:
            handles, labels = zip(*self.legend, strict=True)
            columns = 2 if max(map(len, labels)) <= _LONGEST // 2 - 2 else 1
            self.figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        self.figure.savefig(folder / f"{name}.png", dpi=200)
        self.figure.set_layout_engine("none")  # laid out once; the same places do for both files
        text = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": name}):
            self.figure.savefig(
                text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
            )
        return Picture(name, title, caption, _element(text.getvalue(), name, f"{title}. {caption}"))


@contextmanager
def look() -> Iterator[None]:
    """Matplotlib's settings for the figures of a report, and as they were afterwards."""
    with mpl.rc_context(_LOOK):
        yield


def new_plot(height: float = 2.9) -> Plot:
    """Empty axes; height in inches, the legend included."""
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return Plot(figure, figure.subplots(), [])


def draw_line(
    plot: Plot,
    places: Sequence[float],
    values: Sequence[Estimate],
    size: float,
    number: int,
    *,
    faint: bool = False,
    dots: bool = False,
) -> Any:
    """A mean line with a band of one standard deviation; a bar where there is one place only.

    Args:
        plot: Where to.
        places: On the x axis, in order.
        values: At each place.
        size: Of the unit, by which values are divided.
        number: Of the line, which gives it colour and marker.
        faint: In grey, behind the others.
        dots: Points with bars instead of a line: their order means nothing.

    Returns:
        What the legend shows.
    """
    colour = FAINT if faint else COLOURS[number % len(COLOURS)]
    order = 2 if faint else 3
    means, low, high = _ends(values, size)
    if len(places) == 1 or dots:
        plot.axes.vlines(places, low, high, color=colour, lw=1.2, zorder=order)
    elif not faint:
        plot.axes.fill_between(places, low, high, color=colour, alpha=0.15, lw=0, zorder=order)
    marker = None if faint and len(places) > 1 else MARKERS[number % len(MARKERS)]
    style = {
        "linestyle": "none" if dots else "-",
        "marker": marker,
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
    }
    (line,) = plot.axes.plot(places, means, color=colour, zorder=order, **style)
    return line


def draw_curve(
    plot: Plot, steps: Sequence[int], values: Sequence[Estimate], number: int | None
) -> Any:
    """A learning curve: as `draw_line`, with few markers; faint without a number."""
    if number is None:
        return draw_line(plot, steps, values, 1.0, 0, faint=True)
    line = draw_line(plot, steps, values, 1.0, number)
    line.set(markersize=4, linewidth=1.3)
    line.set_markevery(max(1, len(steps) // 8))
    return line


def draw_baselines(draw: Callable[..., Any], plot: Plot, task: Task) -> None:
    """Lines for zero-shot and majority on test; of several models, zero-shot alone for each."""
    dashes = ((0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
    for at, model in enumerate(task.models[: len(dashes)]):
        for kind, title, colour in (
            ("zero_shot", "zero-shot", INK),
            ("majority", "majority class", SOFT),
        ):
            found = task.baseline(kind, model).get(task.test or "")
            if found is None or (at and kind == "majority"):
                continue
            several = len(task.models) > 1 and kind == "zero_shot"
            label = f"{title}, {tidy(model)}" if several else title
            style = dashes[at] if kind == "zero_shot" else dashes[1]
            plot.note(draw(found.mean, color=colour, lw=1.0, ls=style, zorder=1.5), label)


def _ends(values: Sequence[Estimate], size: float) -> tuple[list[float], list[float], list[float]]:
    """Means, and one standard deviation below and above them."""
    means = [value.mean / size for value in values]
    spreads = [(value.sd or 0.0) / size for value in values]
    low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
    return means, low, [mean + spread for mean, spread in zip(means, spreads, strict=True)]


def scale(axes: Any, values: Sequence[float], *, linear: bool = False, most: int = 8) -> None:
    """Make the x axis logarithmic where values spread over a decade; tick the values if few.

    Args:
        axes: Whose x axis.
        values: The places on it, rising.
        linear: Keep it linear, however far they spread.
        most: Places up to this number are ticked, unless labels would overlap.
    """
    axis, (low, high) = axes.xaxis, (values[0], values[-1])
    on_axis: Callable[[float], float] = float
    if low > 0 and high >= 10 * low and not linear:
        on_axis = math.log
        axes.set_xscale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    places = list(map(on_axis, values))
    apart = (b - a for a, b in itertools.pairwise(places))
    if len(values) <= most and min(apart) >= _LABEL_SHARE * (places[-1] - places[0]):
        axis.set_major_locator(FixedLocator(list(values)))
    axis.set_minor_locator(NullLocator())


def _element(svg: str, name: str, label: str) -> str:
    """A matplotlib SVG as an element of a page: named, sized by the page, with ids of its own."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(svg)  # noqa: S314  (made above, not read from anywhere)
    for parent in root.iter():
        # It would hold for the whole page.
        for sheet in parent.findall(f"{{{_SVG}}}style"):
            parent.remove(sheet)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
            elif key == f"{{{_XLINK}}}href":
                del element.attrib[key]
                element.set("href", f"#{name}-{value[1:]}")
        style = element.get("style", "")
        if "font-family" in style:
            kept = (part for part in style.split(";") if "font-family" not in part)
            element.set("style", ";".join(kept))
    for key in ("width", "height"):
        del root.attrib[key]
    root.set("role", "img")
    root.set("aria-label", tidy(label))
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    return ET.tostring(root, encoding="unicode")
