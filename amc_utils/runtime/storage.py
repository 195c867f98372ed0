"""Where the samples of many frames fit: on the device, in host memory, or on disk."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

# Share of the free memory that samples may take; the rest is for networks and activations.
_SHARE = 0.6
# Batches fetched before they are asked for.
_AHEAD = 2
_CGROUPS = Path("/sys/fs/cgroup")


def free_host_bytes() -> int:
    """Free memory of the host, or of the control group (container, batch job) of this process."""
    free = psutil.virtual_memory().available
    for limit, used in _limits():
        try:
            free = min(free, int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):  # no such group seen from here, or the limit "max"
            continue
    # Processes of one host measure at the same time and share what there is.
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _limits() -> list[tuple[Path, Path]]:
    """Files that may hold limit and use of this process's control group, of either version."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf8").splitlines()
    except OSError:
        return []
    found = [(_CGROUPS / "memory.max", _CGROUPS / "memory.current")]
    for line in lines:
        _, kind, name = line.split(":", 2)
        if not kind:
            folder = _CGROUPS / name.lstrip("/")
            found.append((folder / "memory.max", folder / "memory.current"))
        elif "memory" in kind.split(","):
            folder = _CGROUPS / "memory" / name.lstrip("/")
            found.append((folder / "memory.limit_in_bytes", folder / "memory.usage_in_bytes"))
    return found


def free_bytes(device: torch.device) -> int:
    """Free memory of a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_host_bytes()


def free_disk_bytes(folder: Path | str) -> int:
    """Free space of the disk that a folder lies on."""
    return psutil.disk_usage(str(folder)).free


def choose_place(num_bytes: int, device: torch.device, wanted: str = "auto", beside: int = 0) -> str:
    """Fastest of "device", "host" and "disk" that has room for so many bytes, or the wanted one.

    Args:
        num_bytes: of the samples.
        device: where they are worked on.
        wanted: a place, or "auto".
        beside: bytes that networks will take on the device, where that is known.
    """
    if wanted != "auto":
        return wanted
    free = free_bytes(device)
    if num_bytes <= min(_SHARE * free, free - beside):
        return "device"
    return "host" if num_bytes <= _SHARE * free_host_bytes() else "disk"


def allocate(shape: Sequence[int], dtype: torch.dtype, device: torch.device, place: str) -> Tensor:
    """Empty tensor in a place; on disk a memory map in the folder for temporary files, of no name.

    Raises:
        OSError: the disk has no room.
    """
    if place == "device" and device.type == "cpu":
        # numpy asks the system for huge pages, torch does not; filling 3 GB of them is twice as fast.
        return torch.from_numpy(np.empty(shape, {torch.float16: "f2", torch.float32: "f4"}[dtype]))
    if place == "device":
        return torch.empty(*shape, dtype=dtype, device=device)
    if place == "host":
        return torch.empty(*shape, dtype=dtype, pin_memory=device.type == "cuda")
    count = int(np.prod(shape))
    num_bytes = count * dtype.itemsize
    free = free_disk_bytes(tempfile.gettempdir()) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if num_bytes > free:
        raise OSError(
            f"{tempfile.gettempdir()} must have room for {num_bytes / 1e9:.1f} GB of samples, it "
            f"has {free / 1e9:.1f}; set TMPDIR to another, or take fewer frames"
        )
    # The map keeps the file alive; without a name it goes when the process ends, however it ends.
    with tempfile.NamedTemporaryFile() as file:
        flat = torch.from_file(file.name, shared=True, size=count, dtype=dtype)
    return flat.view(*shape)


def fetch_ahead(fetch: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """What `fetch` gives for each batch in turn, by another thread a little ahead of its use."""
    with ThreadPoolExecutor(1) as thread:
        pending = deque()
        for batch in batches:
            pending.append(thread.submit(fetch, batch))
            if len(pending) > _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
