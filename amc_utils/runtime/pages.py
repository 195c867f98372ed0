"""Pages of Markdown with generated parts, between `<!-- NAME: begin -->` and `<!-- NAME: end -->`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def with_table(page: str, name: str, text: str) -> str:
    """Replace what stands between a page's marks of that name.

    Raises:
        ValueError: the page lacks the marks.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, mark, rest = page.partition(begin)
    _, closing, after = rest.partition(end)
    if not (mark and closing):
        raise ValueError(f"the page must hold the marks {begin} and {end} in this order")
    return f"{before}{begin}\n{text}\n{end}{after}"


def markdown_table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Table in Markdown, a line a row."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def with_interval(value: float, low: float, high: float, form: str = ".3f") -> str:
    """A number and the ends of its interval, in the format `form`; alone where it has no interval."""
    ends = "" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]"
    return f"{value:{form}}{ends}"
