"""The claims as README shows them, a row each, and all their rows for docs/claims.md."""

from __future__ import annotations

from typing import Any

import pandas as pd

from amc_utils.studies.claim_rules import Claim

_BEGIN, _END = "<!-- claims: begin -->", "<!-- claims: end -->"


def short_table(claims: dict[str, Claim], rows: pd.DataFrame) -> str:
    """README's table in Markdown, a row a claim, from the rows of amc_utils.studies.claims.evaluate."""
    lines = [
        "| claim of the log | number that decides [95 % interval] | verdict | its other rows |",
        "|---|---|---|---|",
    ]
    for name, claim in claims.items():
        of_claim = rows[rows["claim"] == name]
        others = of_claim.loc[~of_claim["decides"], "verdict"].value_counts(sort=False)
        tally = ", ".join(f"{count} {verdict}" for verdict, count in others.items())
        (row,) = of_claim[of_claim["decides"]].itertuples()
        number = " ".join([f"{row.what} ({row.unit}):", _value(row)]) if _value(row) else row.what
        cells = [f"**{name}**: {claim.statement}", number, row.verdict, tally]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def full_table(rows: pd.DataFrame) -> str:
    """All rows in Markdown, with the ranges of their rules and their scale."""
    lines = [
        "| claim | what | unit | number [95 % interval] | rule | scale | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows.itertuples():
        scale = f"{row.scale}; {row.num_runs} runs" if _value(row) else ""
        cells = [row.claim, row.what, row.unit, _value(row), _rule(row), scale, row.verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _value(row: Any) -> str:
    """Number with its interval; nothing where there is none yet."""
    return f"{row.number:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" if pd.notna(row.number) else ""


def _rule(row: Any) -> str:
    """The ranges that decide, in a few words."""
    ranges = (
        ("supported", row.support_low, row.support_high),
        ("not", row.refute_low, row.refute_high),
    )
    texts = [f"{word} {low:g} to {high:g}" for word, low, high in ranges if pd.notna(low)]
    return "; ".join(texts).replace("inf", "∞")


def with_table(page: str, text: str) -> str:
    """A page with the table between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, mark, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (mark and end):
        raise ValueError(
            f"README.md and docs/claims.md must hold the marks {_BEGIN} and {_END} for their tables"
        )
    return f"{before}{_BEGIN}\n{text}\n{_END}{after}"
