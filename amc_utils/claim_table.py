"""The claims as README shows them: a row that decides for each, and all rows folded away below."""

from __future__ import annotations

from typing import Any

import pandas as pd

from amc_utils.claim_rules import Claim

_BEGIN, _END = "<!-- claims: begin -->", "<!-- claims: end -->"


def table(claims: dict[str, Claim], rows: pd.DataFrame) -> str:
    """Two tables in Markdown, from the rows of amc_utils.claims.evaluate."""
    number = "number [95 % interval]"
    short = [f"| claim | what decides | {number} | scale | verdict | its other rows |"]
    full = [
        f"| claim | what | unit | {number} | rule | scale | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    short += ["|---|---|---|---|---|---|"]
    for name, claim in claims.items():
        of_claim = rows[rows["claim"] == name]
        others = of_claim.loc[~of_claim["decides"], "verdict"].value_counts(sort=False)
        tally = ", ".join(f"{count} {verdict}" for verdict, count in others.items())
        for row in of_claim.itertuples():
            has_number = pd.notna(row.number)
            value = f"{row.number:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" if has_number else ""
            scale = f"{row.scale}; {row.num_runs} runs" if has_number else ""
            cells = [name, row.what, row.unit, value, _rule(row), scale, row.verdict]
            full.append(f"| {' | '.join(cells)} |")
            if row.decides:
                about = f"**{name}**: {claim.statement}"
                cells = [about, f"{row.what} ({row.unit})", value, scale, row.verdict, tally]
                short.append(f"| {' | '.join(cells)} |")
    summary = f"<summary>All {len(rows)} rows, with the ranges of their rules</summary>"
    return "\n".join([*short, "", "<details>", summary, "", *full, "", "</details>"])


def _rule(row: Any) -> str:
    """The ranges that decide, in a few words."""
    ranges = (
        ("supported", row.support_low, row.support_high),
        ("not", row.refute_low, row.refute_high),
    )
    texts = [f"{word} {low:g} to {high:g}" for word, low, high in ranges if pd.notna(low)]
    return "; ".join(texts).replace("inf", "∞")


def with_table(readme: str, text: str) -> str:
    """README with the table between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, mark, rest = readme.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (mark and end):
        raise ValueError(
            f"README.md must hold the marks {_BEGIN} and {_END}, between which claims stand"
        )
    return f"{before}{_BEGIN}\n{text}\n{_END}{after}"
