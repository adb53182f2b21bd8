"""Pages for people: each is one HTML file that needs nothing else, for a phone, a screen and a printer, light and dark.

A page is a Jinja2 template beside the code that knows its numbers; it extends ``page.html.jinja``, which has the frame
and the looks. Whatever is put into one is text, never markup. How to add one: docs/contributing/page.md.
"""

from __future__ import annotations

import functools
import time

import jinja2

import gristmill
from gristmill.telemetry.progress import duration


def render(template: str, /, **values: object) -> str:
    """``template`` by its path in the package, such as "bench/bench.html.jinja". A name that the template uses and
    ``values`` lack is an error, not an empty text."""
    return _environment().get_template(template).render(version=gristmill.__version__, **values)


def told_date(seconds: float) -> str:
    """Unix time as "25 November 2026, 14:05 UTC"."""
    day, rest = time.strftime("%d|%B %Y, %H:%M UTC", time.gmtime(seconds)).split("|")
    return f"{int(day)} {rest}"


def day(seconds: float) -> str:
    """Unix time as "25 Nov, 14:05", in UTC; with the year where that is another one."""
    given = time.gmtime(seconds)
    year = "" if given.tm_year == time.gmtime().tm_year else time.strftime(" %Y", given)
    return f"{given.tm_mday} {time.strftime('%b', given)}{year}, {time.strftime('%H:%M', given)}"


def told_bytes(size: int) -> str:
    """Two or three digits: "3.4 GB"."""
    amount, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if amount >= 100 or unit == "bytes" else f"{amount:.1f} {unit}"


def short(number: float | None) -> str:
    """Three digits; nothing for None."""
    return "" if number is None else f"{number:.3g}"


def one_line(text: str, most: int = 300) -> str:
    """On one line, and at most so many characters."""
    line = " · ".join(part.strip() for part in text.splitlines() if part.strip())
    return line if len(line) <= most else line[:most].rstrip() + "…"


def clipped(text: str, most: int = 20_000) -> str:
    """Lines as they are, and at most so many characters."""
    return text if len(text) <= most else f"{text[:most]}…\n({len(text) - most:,} more characters)"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gristmill", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        count=lambda number: f"{number:,}",
        short=short,
        duration=duration,
        one_line=one_line,
        clipped=clipped,
        bytes=told_bytes,
        day=day,
    )
    return environment
