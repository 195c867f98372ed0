"""Is a file in RadioML's layout what it says? Measures, verdicts, and a page."""
