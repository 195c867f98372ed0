"""Progress bars that show in a terminal, in a notebook and in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
_SECONDS_BETWEEN_UPDATES = 5


def progress(items: Iterable[Item] | None = None, **options) -> tqdm:
    """The items, with a line of text on what is done and the time that is left; see tqdm's options."""
    return tqdm(
        items,
        file=sys.stdout,
        leave=False,
        ascii=True,
        ncols=80,
        mininterval=_SECONDS_BETWEEN_UPDATES,
        delay=_SECONDS_BETWEEN_UPDATES,
        **options,
    )
