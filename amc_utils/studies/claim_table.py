"""Tables of the claims in Markdown: verdicts for README.md; a row a claim, and all rows, for docs/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from amc_utils.runtime.pages import markdown_table
from amc_utils.studies.claim_rules import Claim


def verdicts(claims: dict[str, Claim], rows: pd.DataFrame) -> str:
    """README's table in Markdown: each claim, the verdict that decides, and a count of the others."""
    lines = [
        [f"**{row.claim}**: {claim.statement}", row.verdict, others]
        for claim, row, others in _decided(claims, rows)
    ]
    return markdown_table(["claim of the log", "verdict here", "its other tests"], lines)


def short_table(claims: dict[str, Claim], rows: pd.DataFrame) -> str:
    """A row a claim in Markdown, with the number that decides."""
    lines = []
    for claim, row, others in _decided(claims, rows):
        number = " ".join([f"{row.what} ({row.unit}):", _value(row)]) if _value(row) else row.what
        lines.append([f"**{row.claim}**: {claim.statement}", number, row.verdict, others])
    columns = ["claim of the log", "number that decides [95 % interval]", "verdict", "its other tests"]
    return markdown_table(columns, lines)


def _decided(claims: dict[str, Claim], rows: pd.DataFrame) -> Iterator[tuple[Claim, Any, str]]:
    """Each claim, its row that decides, and a count of its other verdicts.

    Args:
        claims: see amc_utils.studies.claim_rules.read_claims.
        rows: of amc_utils.studies.claims.evaluate.
    """
    for name, claim in claims.items():
        of_claim = rows[rows["claim"] == name]
        others = of_claim.loc[~of_claim["decides"], "verdict"].value_counts(sort=False)
        (row,) = of_claim[of_claim["decides"]].itertuples()
        yield claim, row, ", ".join(f"{count} {verdict}" for verdict, count in others.items())


def full_table(rows: pd.DataFrame) -> str:
    """All rows in Markdown, with the ranges of their rules and their scale."""
    lines = []
    for row in rows.itertuples():
        scale = f"{row.scale}; {row.num_runs} runs" if _value(row) else ""
        lines.append([row.claim, row.what, row.unit, _value(row), _rule(row), scale, row.verdict])
    columns = ["claim", "what", "unit", "number [95 % interval]", "rule", "scale", "verdict"]
    return markdown_table(columns, lines)


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
