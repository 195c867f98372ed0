"""Where the samples of many frames fit: on the device, in host memory, or on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

# Share of the free memory that samples may take; the rest is for networks and activations.
_SHARE = 0.6
_CGROUP = Path("/sys/fs/cgroup")


def free_host_bytes() -> int:
    """Free memory of the host, or of the control group (container, batch job) of this process."""
    free = psutil.virtual_memory().available
    try:
        limit = int((_CGROUP / "memory.max").read_text(encoding="utf8"))
        used = int((_CGROUP / "memory.current").read_text(encoding="utf8"))
    except (OSError, ValueError):  # no control groups, or the limit "max"
        return free
    return min(free, limit - used)


def free_bytes(device: torch.device) -> int:
    """Free memory of a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_host_bytes()


def choose_place(num_bytes: int, device: torch.device, wanted: str = "auto") -> str:
    """Fastest of "device", "host" and "disk" that has room for so many bytes, or the wanted one."""
    if wanted != "auto":
        return wanted
    if num_bytes <= _SHARE * free_bytes(device):
        return "device"
    return "host" if num_bytes <= _SHARE * free_host_bytes() else "disk"


def allocate(shape: Sequence[int], dtype: torch.dtype, device: torch.device, place: str) -> Tensor:
    """Empty tensor in a place; on disk a memory map in the folder for temporary files, of no name.

    Raises:
        OSError: the disk has no room.
    """
    if place == "device":
        return torch.empty(*shape, dtype=dtype, device=device)
    if place == "host":
        return torch.empty(*shape, dtype=dtype, pin_memory=device.type == "cuda")
    count = int(np.prod(shape))
    num_bytes = count * dtype.itemsize
    free = psutil.disk_usage(tempfile.gettempdir()).free
    if num_bytes > free:
        raise OSError(
            f"{tempfile.gettempdir()} must have room for {num_bytes / 1e9:.1f} GB of samples, it "
            f"has {free / 1e9:.1f}; set TMPDIR to another, or take fewer frames"
        )
    # The map keeps the file alive; without a name it goes when the process ends, however it ends.
    with tempfile.NamedTemporaryFile() as file:
        flat = torch.from_file(file.name, shared=True, size=count, dtype=dtype)
    return flat.view(*shape)
