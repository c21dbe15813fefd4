"""Numbers as people read them: three decimals for scores, fitting units for time and memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lpt.report.statistics import Estimate
from lpt.report.tables import NOTHING, Cell


@dataclass(frozen=True)
class Unit:
    """A unit and by what values are divided to be in it."""

    name: str
    size: float = 1.0
    decimals: int = 1


UNBROKEN = "\u00a0"
"""A space at which no line ends."""
SCORE = Unit("", decimals=3)
SPEED = Unit("examples/s")
COUNT = Unit("", decimals=0)
_TIMES = (Unit("s"), Unit("min", 60.0), Unit("h", 3600.0, 2))
_MEMORIES = (Unit("MB", decimals=0), Unit("GB", 1024.0, 2))


def time_unit(seconds: Iterable[float]) -> Unit:
    """One unit for all of these times: s up to 5 min, min up to 5 h, then h."""
    return _fitting(_TIMES, max(seconds, default=0.0) / 5)


def memory_unit(megabytes: Iterable[float]) -> Unit:
    """One unit for all of these: MB, or GB from 1 GB on."""
    return _fitting(_MEMORIES, max(megabytes, default=0.0))


def _fitting(units: Iterable[Unit], largest: float) -> Unit:
    return [unit for unit in units if unit.size <= max(largest, 1.0)][-1]


def number(value: float | None, unit: Unit) -> str:
    """A value in a unit, without the unit's name; a proper minus sign."""
    if value is None:
        return NOTHING
    text = f"{value / unit.size:,.{unit.decimals}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")  # no minus zero
    return text.replace("-", "−")


def cell(found: Estimate | None, unit: Unit, *, strong: bool = False) -> Cell:
    """Mean ± standard deviation; a single run's value alone."""
    if found is None:
        return Cell(NOTHING)
    spread = f"± {number(found.sd, unit)}" if found.sd is not None else ""
    return Cell(number(found.mean, unit), spread, strong)


def fixed(found: Estimate | None, unit: Unit) -> Cell:
    """As `cell`, but without a spread where all values are the same, as counts mostly are."""
    shown = cell(found, unit)
    return shown if found is not None and found.sd else Cell(shown.text)


def amount(value: float, unit: Unit) -> str:
    """A value with its unit."""
    return f"{number(value, unit)}{UNBROKEN}{unit.name}".rstrip()


def signed(value: float, unit: Unit = SCORE) -> str:
    """A difference with its sign."""
    text = number(value, unit)
    return text if text.startswith("−") or not text.strip("0.,") else f"+{text}"


def p_value(p: float | None) -> str:
    """A p-value with three decimals."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def plain(found: Estimate | None) -> str:
    """A score as it stands in a sentence: mean ± sd (n = ...)."""
    if found is None:
        return NOTHING
    return f"{cell(found, SCORE)} (n = {found.n})".replace(" ", UNBROKEN)


def percent(share: float) -> str:
    """A share as per cent without decimals."""
    return f"{100 * share:.0f}{UNBROKEN}%"
