"""A CUDA device that is not there: its tensors have shapes but no memory, and its waits are listed.

Tensors "on cuda" are torch's fake ones; those of the host are real. Whatever makes the host wait for a
real device is listed with the line that asked for it, and answered at once with a constant.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from lightning.fabric.accelerators import CUDAAccelerator
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from amc_utils.runtime.paths import REPOSITORY

CUDA, META = torch.device("cuda", 0), torch.device("meta")
# Of these a real device tells the host something: a number, or how large the result is.
_TELLS = {
    "_local_scalar_dense", "bincount", "equal", "linalg_cholesky", "masked_select", "multinomial",
    "nonzero", "repeat_interleave", "unique_consecutive", "unique_dim", "_unique", "_unique2",
}  # fmt: skip


@dataclass(frozen=True)
class Wait:
    """An operation for which the host waits, and where it was asked for."""

    operation: str
    file: str
    line: int


@dataclass
class Recorder:
    """What the host waited for.

    Attributes:
        waits: in the order of their occurrence.
        answer: what every read of the device gives.
    """

    waits: list[Wait] = field(default_factory=list)
    answer: int = 1

    def add(self, operation: str) -> None:
        """Note a wait of the innermost line of this repository."""
        frame = sys._getframe()
        while frame.f_back and not _is_own(frame.f_code.co_filename):
            frame = frame.f_back
        name = Path(frame.f_code.co_filename).name
        self.waits.append(Wait(operation, name, frame.f_lineno))

    @contextmanager
    def listed(self) -> Iterator[list[Wait]]:
        """List of the waits inside the block, filled while it runs."""
        before, self.waits = self.waits, []
        try:
            yield self.waits
        finally:
            self.waits = before + self.waits


def _is_own(file: str) -> bool:
    path = Path(file)
    return REPOSITORY in path.parents and path != Path(__file__) and "site-packages" not in path.parts


class _Operations(TorchDispatchMode):
    """Sends operations to the pretended device if they touch it, else to the host.

    Autograd asks the driver about streams of tensors of "cuda", not about those of "meta", so torch's
    C++ is told "meta". Autocast casts only tensors of "cuda", so it is told that while it looks at its
    arguments; none of these is the result that autograd is just taking note of. Python sees "cuda".
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder, self.latest, self.autocast = recorder, [], False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:
            is_new = any(args[0] is tensor for tensor in self.latest)
            is_casting = self.autocast and not torch.is_autocast_enabled("cuda")
            return CUDA if is_casting and not is_new else META
        result = self._run(func, args, dict(kwargs or {}))
        self.latest = tree_leaves(result)
        return result

    def _run(self, func: Any, args: tuple, kwargs: dict) -> Any:
        target = kwargs.get("device")
        # Of "meta" are tensors that torch's C++ makes like others, see above.
        if target is not None and torch.device(target).type in ("meta", "cuda"):
            target = kwargs["device"] = CUDA
        name, leaves = func.overloadpacket.__name__, tree_leaves((args, kwargs))
        if not (target == CUDA or any(isinstance(leaf, FakeTensor) for leaf in leaves)):
            with unset_fake_temporarily():
                return args[0] if name == "_pin_memory" else func(*args, **kwargs)
        if "generator" in kwargs:
            kwargs["generator"] = None
        if name in ("_to_copy", "copy_"):
            return self._copy(func, name, args, kwargs)
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            args = (args[0], self._places(name, args[1]), *args[2:])
        if name in _TELLS:
            self.recorder.add(name)
            return self._told(func, name, args, kwargs)
        return func(*args, **kwargs)

    def _copy(self, func: Any, name: str, args: tuple, kwargs: dict) -> Any:
        source = args[1] if name == "copy_" else args[0]
        to = args[0].device if name == "copy_" else torch.device(kwargs.get("device", source.device))
        is_async = kwargs.get("non_blocking", False) or (name == "copy_" and args[2:] == (True,))
        from_host = not isinstance(source, FakeTensor)
        if to.type == "cpu" or (from_host and not is_async):
            self.recorder.add(f"{name} {'host' if from_host else 'cuda'} to {to.type}")
        dtype = kwargs.get("dtype", source.dtype)
        if to.type == "cuda":
            return func(*args, **kwargs)
        target = args[0] if name == "copy_" else None
        with unset_fake_temporarily():
            if target is not None:
                return target.fill_(self.recorder.answer)
            return torch.full(source.shape, self.recorder.answer, dtype=dtype)

    def _places(self, name: str, indices: list) -> list:
        """Indices of whole numbers on the device; masks are read, and so is what lies on the host."""
        found = []
        for index in indices:
            if index is not None and not isinstance(index, FakeTensor):
                self.recorder.add(f"{name} from host")
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                self.recorder.add(f"{name} by mask")
                found += [torch.empty(index.numel(), dtype=torch.int64, device=CUDA)] * index.ndim
            else:
                found.append(index)
        return found

    def _told(self, func: Any, name: str, args: tuple, kwargs: dict) -> Any:
        if name == "_local_scalar_dense":
            dtype = args[0].dtype
            kind = bool if dtype == torch.bool else float if dtype.is_floating_point else int
            return kind(self.recorder.answer)
        if name == "equal":
            return bool(self.recorder.answer)
        if name == "nonzero":
            return torch.empty(args[0].numel(), args[0].ndim, dtype=torch.int64, device=CUDA)
        if name == "masked_select":
            return torch.empty(args[0].numel(), dtype=args[0].dtype, device=CUDA)
        if name == "bincount":
            size = kwargs.get("minlength", 0) or (args[2] if len(args) > 2 else 1)
            return torch.empty(max(size, 1), dtype=torch.int64, device=CUDA)
        if name.startswith(("_unique", "unique")):
            empty = torch.empty(args[0].shape, dtype=torch.int64, device=CUDA)
            return args[0].flatten()[:1], empty, empty.flatten()[:1]
        return func(*args, **kwargs)


class _Constructors(TorchFunctionMode):
    """Makes `new_tensor` a copy from the host, as on a device, and tells when a call may be cast."""

    def __init__(self, operations: _Operations) -> None:
        super().__init__()
        self.operations, self.leaves = operations, {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.operations.autocast = torch.is_autocast_enabled("cuda")
        if self.operations.autocast:
            # Autograd's node of a parameter is made here, before autocast hears of "cuda", and kept.
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor) and leaf.is_leaf and leaf.requires_grad:
                    self.leaves[id(leaf)] = (leaf, get_gradient_edge(leaf))
        self.operations.latest = []
        if func is Tensor.new_tensor and isinstance(args[0], FakeTensor):
            return torch.tensor(args[1], dtype=args[0].dtype, device=CUDA)
        return func(*args, **kwargs)


@contextmanager
def pretended_device() -> Iterator[Recorder]:
    """A process that has one CUDA device, as far as amc_utils can tell."""
    recorder, fake = Recorder(), FakeTensorMode(allow_non_fake_inputs=True)
    operations, generator = _Operations(recorder), torch.Generator

    patches = [
        # The mode's notes on tensors would forbid parameters to become those of the device in place.
        mock.patch.object(torch.utils, "weakref", SimpleNamespace(getweakrefs=lambda _: [])),
        # One copy, as of a real tensor, not one for each number.
        mock.patch.object(FakeTensor, "tolist", lambda self: self.cpu().tolist()),
        mock.patch.object(FakeTensorMode, "avoid_device_init", True),
        mock.patch.object(CUDAAccelerator, "setup_device"),
        mock.patch.object(torch, "Generator", side_effect=lambda *_: generator()),
        mock.patch.multiple(
            torch.cuda,
            is_available=lambda: True,
            is_bf16_supported=lambda *_: True,
            device_count=lambda: 1,
            current_device=lambda: 0,
            mem_get_info=lambda *_: (1 << 36, 1 << 36),
            synchronize=lambda *_: None,
            get_rng_state=lambda *_: torch.zeros(16, dtype=torch.uint8),
            set_rng_state=lambda *_: None,
        ),
    ]
    with ExitStack() as stack:
        stack.callback(_forget_constants)
        # Parameters that move stay the objects that an optimiser knows.
        future = torch.__future__
        stack.callback(
            future.set_swap_module_params_on_conversion, future.get_swap_module_params_on_conversion()
        )
        future.set_swap_module_params_on_conversion(True)
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(fake)
        stack.enter_context(operations)
        stack.enter_context(_Constructors(operations))
        yield recorder


def _forget_constants() -> None:
    """Empty the caches of tensors, so that later tests meet none without memory."""
    for name in [name for name in sys.modules if name.startswith("amc_utils.")]:
        for value in vars(sys.modules[name]).values():
            if hasattr(value, "cache_clear") and "device" in signature(value).parameters:
                value.cache_clear()
