"""Work that several processes want done and one of them does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def one_at_a_time(lock_file: Path, work: str) -> Iterator[None]:
    """Hold a lock while the block runs; says for what it waits where another process holds it.

    Args:
        lock_file: which work it is; its folder is made.
        work: what the other process is doing.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process, which is {work}", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
