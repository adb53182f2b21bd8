"""Throughput over time as a page shows it: a picture, a table beside it, and figures for a script. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from gristmill.html_page import short
from gristmill.telemetry.throughput import PERIOD, Sample, thinned
from gristmill.wire.json import encode

#: Points of a picture, lines of a table; and the samples that are sent again with each new one, for who missed some.
_POINTS, _LINES, _RECENT = 480, 12, 12
#: Of a picture's own units; a page stretches it.
_WIDTH, _HEIGHT = 600, 100
#: What "now" means, in seconds.
_NOW_SECONDS = 30.0


class Curve(NamedTuple):
    """``path`` is an SVG path in a box of 600 by 100."""

    path: str
    now: str
    most: str


class TableLine(NamedTuple):
    until: str
    rows_per_second: str
    tokens_per_second: str


class Curves(NamedTuple):
    """``begin`` and ``end`` are empty where there is nothing to see yet."""

    rows: Curve
    tokens: Curve
    begin: str
    end: str
    table: list[TableLine]


class FollowedCurves:
    """Those of a page that is kept up to date: made anew with each new sample, not with each update. Without their
    paths, which the page's script draws: they are most of what there would be to make and to send."""

    def __init__(self) -> None:
        self._time: float | None = None
        self._made = curves(())
        #: The newest samples, as JSON, where there are some since the last call; else empty.
        self.newest = b""

    def of(self, samples: Sequence[Sample]) -> Curves:
        time = samples[-1].time if samples else None
        self.newest = b""
        if time != self._time:
            self._time, self._made = time, _without_paths(curves(samples))
            self.newest = recent(samples)
        return self._made


def curves(samples: Sequence[Sample]) -> Curves:
    """``samples`` are evenly spaced, oldest first."""
    points = thinned(samples, _POINTS)
    lines = thinned(samples, _LINES)
    return Curves(
        _line([each.rows_per_second for each in points], _now([each.rows_per_second for each in samples])),
        _line([each.tokens_per_second for each in points], _now([each.tokens_per_second for each in samples])),
        _clock(points[0].time) if points else "",
        _clock(points[-1].time) if points else "",
        [TableLine(_clock(at), speed(rows), speed(tokens)) for at, rows, tokens in lines][::-1],
    )


def _without_paths(made: Curves) -> Curves:
    return made._replace(rows=made.rows._replace(path=""), tokens=made.tokens._replace(path=""))


def columns(samples: Sequence[Sample]) -> bytes:
    """As JSON for uPlot: times, rows a second, tokens a second."""
    return encode([list(column) for column in zip(*thinned(samples, _POINTS), strict=True)] or [[], [], []])


def recent(samples: Sequence[Sample]) -> bytes:
    return columns(samples[-_RECENT:])


def speed(number: float) -> str:
    """Three digits, with thousands."""
    return f"{number:,.0f}" if number >= 100 else short(number)


def _now(values: Sequence[float]) -> str:
    latest = values[-round(_NOW_SECONDS / PERIOD) :]
    return speed(sum(latest) / len(latest)) if latest else ""


def _line(values: Sequence[float], now: str) -> Curve:
    most = max(values, default=0.0)
    scale, step = _HEIGHT / (most or 1.0), _WIDTH / max(len(values) - 1, 1)
    points = (f"{index * step:.1f} {_HEIGHT - value * scale:.1f}" for index, value in enumerate(values))
    return Curve("M" + "L".join(points) if values else "", now, speed(most))


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M", time.gmtime(seconds))
