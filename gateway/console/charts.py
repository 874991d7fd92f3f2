"""Charts as places: what a template draws as SVG. Units are the drawing's own; every chart has a table beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 10.0, 30.0


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle of one kind; `title` is what it stands for."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A label on an axis, or a line across the drawing."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline of one kind; `band` is a closed outline to be filled."""

    kind: str
    points: str
    band: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything that one drawing needs."""

    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()
    across: tuple[Mark, ...] = ()
    """Vertical lines through the whole drawing, with their labels."""
    xs: tuple[Mark, ...] = ()
    ys: tuple[Mark, ...] = ()
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    bottom: float = HEIGHT - BOTTOM
    right: float = WIDTH - RIGHT
    top: float = TOP


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from `least` to `most` onto places from `start` to `end`; logarithmic when `log`."""

    least: float
    most: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value, kept inside the drawing."""
        least, most, value = (math.log10(one) if self.log else one for one in (self.least, self.most, value))
        part = (value - least) / (most - least) if most > least else 0.0
        return round(self.start + min(1.0, max(0.0, part)) * (self.end - self.start), 1)


def across(least: float, most: float, log: bool = False) -> Axis:
    """An axis from left to right."""
    return Axis(least, most, LEFT, WIDTH - RIGHT, log)


def upwards(least: float, most: float, log: bool = False) -> Axis:
    """An axis from the bottom up."""
    return Axis(least, most, HEIGHT - BOTTOM, TOP, log)


def step_for(most: float, steps: int = 4) -> float:
    """A round distance of ticks: 1, 2 or 5 times a power of ten, so that at most `steps` + 1 are drawn."""
    rough = max(most, 1e-9) / steps
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(factor for factor in (1.0, 2.0, 5.0, 10.0) if power * factor >= rough * (1 - 1e-9))


def stacked(columns: Sequence[tuple[str, Mapping[str, int]]], kinds: Sequence[str], *, labels: int = 8) -> Chart:
    """A bar for each column, its kinds one on the other; some columns' names below."""
    most = max([sum(counts.get(kind, 0) for kind in kinds) for _, counts in columns], default=0)
    step = max(1.0, step_for(max(1, most)))
    y = upwards(0, max(step, math.ceil(most / step) * step))
    wide = (WIDTH - LEFT - RIGHT) / max(1, len(columns))
    every = max(1, math.ceil(len(columns) / labels))
    bars: list[Bar] = []
    marks: list[Mark] = []
    for place, (name, counts) in enumerate(columns):
        x, below = LEFT + place * wide, 0
        for kind in kinds:
            count = counts.get(kind, 0)
            if count:
                top, bottom = y.at(below + count), y.at(below)
                bars.append(Bar(round(x + wide * 0.1, 1), top, round(wide * 0.8, 1), round(bottom - top, 1), kind,
                                f"{name}: {count}"))  # fmt: skip
                below += count
        if place % every == 0:
            marks.append(Mark(round(x + wide / 2, 1), name))
    ticks = tuple(Mark(y.at(n * step), f"{n * step:,.0f}") for n in range(round(y.most / step) + 1))
    return Chart(bars=tuple(bars), xs=tuple(marks), ys=ticks)


def polyline(x: Axis, y: Axis, points: Sequence[tuple[float, float]], kind: str) -> Line:
    """The points joined."""
    return Line(kind, " ".join(f"{x.at(a)},{y.at(b)}" for a, b in points))


def band(x: Axis, y: Axis, points: Sequence[tuple[float, float, float]], kind: str) -> Line:
    """The space between the low and the high of each point."""
    forth = [f"{x.at(a)},{y.at(high)}" for a, _, high in points]
    back = [f"{x.at(a)},{y.at(low)}" for a, low, _ in reversed(points)]
    return Line(kind, " ".join([*forth, *back]), band=True)
