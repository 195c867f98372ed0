"""Requests to stop: Ctrl-C, a notebook's stop button, SIGTERM from a scheduler."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self

# EX_TEMPFAIL of sysexits.h: try again later, which a scheduler may take for "requeue".
EXIT_RESUMABLE = 75


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop, and can go on from its last checkpoint."""


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """Signal handler for work that has nothing to save.

    Raises:
        Stopped: always.
    """
    raise Stopped("stopped; the same command goes on from the last checkpoint, if there is one")


class StopRequests:
    """While active, a first SIGINT or SIGTERM is noted instead of obeyed; a second one is obeyed.

    May be active again and again; what was noted stays until somebody stops.

    Python delivers signals to the main thread alone; in other threads this does nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._former: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def obey(self) -> None:
        """Send this process a request that was noted and not met, now that nothing is active."""
        if self.received is not None:
            signal.raise_signal(self.received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        while self._former:
            number, handler = self._former.popitem()
            signal.signal(number, handler)
