"""The devices that work is done on."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

import torch
from lightning.fabric import Fabric


def best_accelerator() -> str:
    """Name of the fastest device that has the complex numbers of the images: "cuda", or "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def missing_for_compiling() -> str:
    """What torch.compile needs and this machine has not; empty where it has all."""
    compilers = (os.environ.get("CXX", "g++"), "clang++")
    if not any(map(shutil.which, compilers)):
        return f"a C++ compiler, {' or '.join(compilers)}"
    has_header = Path(sysconfig.get_path("include"), "Python.h").is_file()
    return "" if has_header else "Python.h, the header of this Python"


def best_fabric(precision: str) -> Fabric:
    """Fabric in the precision asked for, on every device that torchrun started, or on the best one."""
    options = {"accelerator": best_accelerator(), "precision": precision}
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Fabric(devices=1, **options)
    local, everywhere = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    fabric = Fabric(strategy="ddp", devices=local, num_nodes=everywhere // local, **options)
    fabric.launch()
    return fabric
