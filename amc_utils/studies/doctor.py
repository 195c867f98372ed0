"""The command `amc doctor`: what a machine has, whether all works on it, what is slow and why."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import psutil
import torch

from amc_utils.inference.classifier import SHIPPED, SHIPPED_FOR_RADIOML, load_classifier
from amc_utils.inference.naming import classify_recording
from amc_utils.inference.trials import trial
from amc_utils.runtime.devices import missing_for_compiling
from amc_utils.runtime.environment import environment
from amc_utils.runtime.paths import Workspace
from amc_utils.runtime.storage import free_bytes, free_disk_bytes, free_host_bytes
from amc_utils.signals import generate_frames

# Kind of a finding, "" for a fact, "slow" or "broken"; and what was found.
Finding = tuple[str, str]
_NETWORK_DISKS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "gluster", "afs", "sshfs")
# Speed of all threads by that of one, from which on more of them are taken to pay.
_WORTH_IT = 1.2
# Classes that nothing makes alike at the highest label.
_PLAIN = ("BPSK", "QPSK", "OQPSK", "8PSK")


def doctor(output_root: str = "") -> int:
    """Say what this machine has, whether all works on it, and what is slow and why.

    Ends with status 1 if something is broken; what is slow works.

    Args:
        output_root: where runs would be written; empty is the repository.
    """
    outputs = Workspace.at(output_root).outputs
    broken = 0
    for check in (_versions, _devices, _threads, lambda: _disk(outputs), _networks):
        for kind, text in check():
            print(f"{kind:8}{text}", flush=True)
            broken += kind == "broken"
    print(f"\n{broken} broken" if broken else "\nnothing is broken")
    return int(broken > 0)


def _versions() -> Iterator[Finding]:
    found = environment()
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    changed = ", changed since" if found["dirty"] else ""
    yield "", f"{versions}; commit {found['commit'][:12]}{changed}"
    yield "", f"device: {found['device']}, with {free_host_bytes() / 1e9:.3g} GB of free memory"


def _devices() -> Iterator[Finding]:
    for number in range(torch.cuda.device_count()):
        room = free_bytes(torch.device("cuda", number)) / 1e9
        yield "", f"GPU {number}: {torch.cuda.get_device_name(number)}, {room:.3g} GB free"
    missing = missing_for_compiling()
    yield "", f"torch.compile: {f'lacks {missing}' if missing else 'has what it needs'}"
    if torch.cuda.is_available():
        if missing:
            yield "slow", "long runs are not compiled for the GPU, for want of what is named above"
    elif Path("/dev/nvidiactl").exists():
        yield "slow", f"this PyTorch, {torch.__version__}, cannot use the GPU that is there"
    else:
        yield "slow", "there is no GPU, and networks train on the cores alone"


def _threads() -> Iterator[Finding]:
    """Threads of PyTorch beside the cores that this process may use, and what they gain."""
    cores, threads = joblib.cpu_count(), torch.get_num_threads()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    busy = psutil.cpu_percent(interval=0.5)
    yield "", f"cores: {cores} for this process; {busy:.0f} % of the machine's are busy"
    yield "", f"threads: {threads} of PyTorch, OMP_NUM_THREADS {asked or 'not set'}"
    if asked.isdigit() and int(asked) > cores:
        yield (
            "slow",
            f"OMP_NUM_THREADS asks for {asked} threads, which wait for {cores} cores; set fewer",
        )
    if cores == 1:
        return
    square, frames = torch.rand(1024, 1024), torch.rand(2048, 1024, dtype=torch.complex64)
    product = _gain(lambda: square @ square, cores)
    spectra = _gain(lambda: torch.fft.fft(frames), cores)
    yield "", f"speed of {cores} threads by that of 1: matrix product {product:.1f}, FFT {spectra:.1f}"
    if threads > 1 and product < _WORTH_IT:
        yield "slow", "threads wait for cores at which others are at work; set OMP_NUM_THREADS=1"
    elif threads < cores and product >= _WORTH_IT:
        yield "slow", f"a run leaves cores idle; unset OMP_NUM_THREADS, or give a study --jobs {cores}"


def _gain(work: Callable[[], object], threads: int) -> float:
    """How many times as fast the work is with so many threads as with one; medians in turn."""
    before, seconds = torch.get_num_threads(), {1: [], threads: []}
    for _ in range(7):
        for count, taken in seconds.items():
            torch.set_num_threads(count)
            # The first after a change of threads wakes them.
            work()
            begun = time.perf_counter()
            work()
            taken.append(time.perf_counter() - begun)
    torch.set_num_threads(before)
    return statistics.median(seconds[1]) / statistics.median(seconds[threads])


def _disk(outputs: Path) -> Iterator[Finding]:
    folder = next(path for path in (outputs, *outputs.parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        yield "broken", f"{folder} must be a folder to write to, and is none ({error.strerror})"
        return
    disks = {Path(disk.mountpoint): disk.fstype for disk in psutil.disk_partitions(all=True)}
    inside = [place for place in disks if folder.resolve().is_relative_to(place)]
    kind = disks[max(inside, key=lambda place: len(place.parts))] if inside else "unknown"
    yield "", f"outputs: {outputs}, {free_disk_bytes(folder) / 1e9:.3g} GB free on {kind}"
    if any(name in kind for name in _NETWORK_DISKS):
        yield "slow", f"outputs, and so checkpoints, lie on a network disk ({kind})"


def _networks() -> Iterator[Finding]:
    """The shipped networks on what they are for: a recording and frames, both simulated."""
    begun = time.perf_counter()
    try:
        truth = trial(2, 1)
        names = [signal.modulation for signal in classify_recording(truth.samples)]
        kind = "" if names == [truth.modulation] else "broken"
        said = f"calls a simulated recording of {truth.modulation} {', '.join(names) or 'no signal'}"
        yield kind, f"{SHIPPED.parent.name} {said}; {time.perf_counter() - begun:.2g} s"
        index = torch.arange(64)
        known, label = index % len(_PLAIN), torch.full((64,), 30.0)
        classifier = load_classifier(SHIPPED_FOR_RADIOML)
        channel = classifier.config.synthetic_channel
        frames = generate_frames(index, known, label, modulations=_PLAIN, seed=1, channel=channel)
        named = classifier.table(classifier(frames.iq))["modulation"]
    except (OSError, ValueError, RuntimeError) as error:
        yield "broken", f"shipped networks must classify, got {type(error).__name__}: {error}"
        return
    right = sum(name == _PLAIN[i] for name, i in zip(named, known.tolist(), strict=True))
    kind = "" if right >= 60 else "broken"
    yield kind, f"{SHIPPED_FOR_RADIOML.parent.name} names {right} of 64 plain frames as they are"
