"""A graph with complex tensors as one of real tensors alone, for ONNX, which has no complex ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_any, tree_map

_ATEN = torch.ops.aten
_REAL_TYPE = {torch.complex64: torch.float32, torch.complex128: torch.float64}


@dataclass(frozen=True)
class _Complex:
    """A complex tensor as its parts, floats of one shape."""

    real: Tensor
    imag: Tensor


class RealParts(nn.Module):
    """Module that computes what an exported graph does, with complex tensors in two parts.

    Operations that are linear act on each part by itself; the others stand in `_RULES`. Where the graph
    holds an operation of another kind, NotImplementedError is raised in the first call.
    """

    def __init__(self, graph: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.complex = graph.run_decompositions().module(check_guards=False)

    def forward(self, inputs: Tensor) -> Any:
        """Output of the graph for its input; both are real."""
        return _Interpreter(self.complex).run(inputs)


class _Interpreter(torch.fx.Interpreter):
    def get_attr(self, target: str, args: tuple, kwargs: dict) -> Any:
        return _in_parts(super().get_attr(target, args, kwargs))

    def run_node(self, n: torch.fx.Node) -> Any:
        if n.op != "call_function" or not isinstance(n.target, torch._ops.OpOverload):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        operation = n.target.overloadpacket
        if operation is _ATEN._assert_tensor_metadata:
            return None
        if operation in _FOR_ALL:
            return _FOR_ALL[operation](*args, **kwargs)
        value = n.meta.get("val")
        gives_complex = isinstance(value, Tensor) and value.is_complex()
        if not gives_complex and not tree_any(_is_complex, (args, kwargs)):
            return n.target(*args, **kwargs)
        if operation in _RULES:
            return _RULES[operation](*args, **kwargs)
        if operation not in _LINEAR:
            raise NotImplementedError(f"no rule for complex tensors of {n.target}")
        return _part_by_part(n.target, args, kwargs)


def _is_complex(value: Any) -> bool:
    return isinstance(value, _Complex)


def _in_parts(value: Any) -> Any:
    if not (isinstance(value, Tensor) and value.is_complex()):
        return value
    return _Complex(*torch.view_as_real(value.resolve_conj()).unbind(-1))


def _part_by_part(operation: Callable, args: tuple, kwargs: dict) -> Any:
    """What the operation gives of real parts and of imaginary ones; those of real tensors are zero."""

    def imag(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return torch.zeros_like(value)
        return value.imag if _is_complex(value) else value

    def real(value: Any) -> Any:
        return value.real if _is_complex(value) else value

    parts = [operation(*tree_map(part, args), **tree_map(part, kwargs)) for part in (real, imag)]
    if isinstance(parts[0], Tensor):
        return _Complex(*parts)
    return [_Complex(*pair) for pair in zip(*parts, strict=True)]


def _product(operation: Callable) -> Callable:
    """Rule of an operation that is linear in each of two arguments."""

    def multiply(first: Any, second: Any) -> _Complex:
        if isinstance(first, complex) or isinstance(second, complex):
            raise NotImplementedError("no rule for complex numbers beside complex tensors")
        if not _is_complex(first):
            return _Complex(operation(first, second.real), operation(first, second.imag))
        if not _is_complex(second):
            return _Complex(operation(first.real, second), operation(first.imag, second))
        return _Complex(
            operation(first.real, second.real) - operation(first.imag, second.imag),
            operation(first.real, second.imag) + operation(first.imag, second.real),
        )

    return multiply


def _quotient(first: _Complex, second: Any) -> _Complex:
    if not _is_complex(second):
        return _Complex(first.real / second, first.imag / second)
    power = second.real.square() + second.imag.square()
    return _quotient(_product(_ATEN.mul)(first, _Complex(second.real, -second.imag)), power)


def _power(value: _Complex, exponent: float) -> _Complex:
    if exponent != 2:
        raise NotImplementedError(f"no rule for complex tensors to the power {exponent}")
    return _product(_ATEN.mul)(value, value)


def _fourier(value: _Complex, dims: list[int], scaled: int, forward: bool) -> _Complex:
    """Discrete Fourier transform along one axis, as torch's _fft_c2c.

    As matrix products of two factors of the length, as near as can be to its root: onnxruntime's own
    transform of a length that is no power of two is only right to a thousandth.
    """
    (dim,) = dims
    real, imag = (part.movedim(dim, -1) for part in (value.real, value.imag))
    size = real.shape[-1]
    rows = max(row for row in range(1, int(size**0.5) + 1) if size % row == 0)
    turns = -1 if forward else 1
    table = _Complex(*(part.unflatten(-1, (rows, size // rows)) for part in (real, imag)))
    table = _product(torch.matmul)(_waves(rows, rows, turns / rows), table)
    table = _product(torch.mul)(table, _waves(rows, size // rows, turns / size))
    table = _product(torch.matmul)(table, _waves(size // rows, size // rows, turns * rows / size))
    factor = (1.0, size**-0.5, 1 / size)[scaled]
    return _Complex(*(
        (part.transpose(-1, -2).flatten(-2) * factor).movedim(-1, dim)
        for part in (table.real, table.imag)
    ))  # fmt: skip


def _waves(num_rows: int, num_columns: int, turns: float) -> _Complex:
    """Turn by so many turns times the numbers of row and column."""
    phase = 2 * np.pi * turns * np.outer(np.arange(num_rows), np.arange(num_columns))
    parts = np.cos(phase), np.sin(phase)
    return _Complex(*(torch.from_numpy(part.astype(np.float32)) for part in parts))


def _fourier_of_real(value: Tensor, dims: list[int], scaled: int, half: bool) -> _Complex:
    found = _fourier(_Complex(value, torch.zeros_like(value)), dims, scaled, True)
    if not half:
        return found
    count = value.shape[dims[0]] // 2 + 1
    return _Complex(*(part.narrow(dims[0], 0, count) for part in (found.real, found.imag)))


def _real_of_fourier(value: _Complex, dims: list[int], scaled: int, size: int) -> Tensor:
    """Real transform of the half of a spectrum whose other half mirrors it, as torch's _fft_c2r."""
    (dim,), count = dims, (size - 1) // 2
    real, imag = (part.narrow(dim, 1, count).flip(dim) for part in (value.real, value.imag))
    whole = _Complex(torch.cat([value.real, real], dim), torch.cat([value.imag, -imag], dim))
    return _fourier(whole, dims, scaled, False).real


def _to_type(value: Any, *, dtype: torch.dtype, **_: Any) -> _Complex:
    real = value.real if _is_complex(value) else value
    imag = value.imag if _is_complex(value) else torch.zeros_like(value)
    return _Complex(real.to(_REAL_TYPE[dtype]), imag.to(_REAL_TYPE[dtype]))


def _inverse(matrix: _Complex) -> tuple[_Complex, None]:
    """Inverses of positive definite matrices by Gauss-Jordan elimination, which needs no pivots there.

    Of the real matrix [[A, -B], [B, A]] for A + jB: its inverse has the same form.
    """
    size = matrix.real.shape[-1]
    upper = torch.cat([matrix.real, -matrix.imag], -1)
    lower = torch.cat([matrix.imag, matrix.real], -1)
    rows = torch.cat([upper, lower], -2)
    rows = torch.cat([rows, torch.eye(2 * size, dtype=rows.dtype).expand_as(rows)], -1)
    for step in range(2 * size):
        pivot = rows[..., step : step + 1, :] / rows[..., step : step + 1, step : step + 1]
        others = rows - rows[..., step : step + 1] * pivot
        rows = torch.cat([others[..., :step, :], pivot, others[..., step + 1 :, :]], -2)
    inverse = rows[..., 2 * size : 3 * size]
    return _Complex(inverse[..., :size, :], inverse[..., size:, :]), None


def _frequencies(count: int, spacing: float = 1.0, **_: Any) -> Tensor:
    number = torch.arange(count)
    return torch.where(number < (count + 1) // 2, number, number - count) * (1 / (count * spacing))


def _sum(first: Any, second: Any, *, alpha: float = 1) -> Any:
    if _is_complex(first) or _is_complex(second):
        return _complex_sum(first, second, alpha)
    if alpha != 1:
        # As a tensor: a number would be translated as one of single precision.
        second = second * torch.tensor(alpha, dtype=second.dtype)
    return first + second


def _complex_sum(first: Any, second: Any, alpha: float) -> _Complex:
    """The sum of which a part is complex; numbers and counts have no imaginary part."""
    parts = [some if _is_complex(some) else _real_tensor(some) for some in (first, second)]
    if alpha != 1:
        factor = torch.tensor(alpha, dtype=parts[1].real.dtype)
        parts[1] = _product(torch.mul)(parts[1], factor) if _is_complex(parts[1]) else parts[1] * factor
    return _part_by_part(torch.add, tuple(parts), {})


def _real_tensor(value: Any) -> Tensor:
    if isinstance(value, complex):
        raise NotImplementedError("no rule for complex numbers beside complex tensors")
    value = torch.as_tensor(value)
    return value if value.is_floating_point() else value.to(torch.float32)


def _padded(value: _Complex, pads: list[int], fill: float = 0) -> _Complex:
    if fill:
        raise NotImplementedError(f"no rule for complex tensors padded with {fill}")
    return _part_by_part(_ATEN.constant_pad_nd, (value, pads), {})


def _full(shape: list[int], value: complex, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    if dtype in _REAL_TYPE:
        return _Complex(*(_full(shape, x, dtype=_REAL_TYPE[dtype]) for x in (value.real, value.imag)))
    return torch.tensor(value, dtype=dtype).expand(shape)


# Operations that torch translates wrongly, or not at all, of whatever tensors.
_FOR_ALL: dict[Any, Callable] = {
    _ATEN.add: _sum,
    _ATEN.complex: _Complex,
    _ATEN.empty_permuted: lambda shape, order, *, dtype, **_: torch.zeros(shape, dtype=dtype),
    _ATEN.fft_fftfreq: _frequencies,
    _ATEN.full: _full,
    _ATEN.searchsorted: lambda edges, value: (edges < value[..., None]).sum(-1),
}
# Operations with complex arguments, or with complex results.
_RULES: dict[Any, Callable] = {
    _ATEN.abs: lambda value: (value.real.square() + value.imag.square()).sqrt(),
    _ATEN.angle: lambda value: torch.atan2(value.imag, value.real),
    _ATEN.view_as_real: lambda value: torch.stack([value.real, value.imag], -1),
    _ATEN._fft_c2c: _fourier,
    _ATEN._fft_c2r: _real_of_fourier,
    _ATEN._fft_r2c: _fourier_of_real,
    _ATEN._conj: lambda value: _Complex(value.real, -value.imag),
    _ATEN._to_copy: _to_type,
    _ATEN.constant_pad_nd: _padded,
    _ATEN.div: _quotient,
    _ATEN.full_like: lambda like, value, **_: _full(like.real.shape, value, dtype=torch.complex64),
    _ATEN.linalg_inv_ex: _inverse,
    _ATEN.pow: _power,
    _ATEN.sub: lambda first, second, *, alpha=1: _complex_sum(first, second, -alpha),
} | {
    operation: _product(operation) for operation in (_ATEN.bmm, _ATEN.mm, _ATEN.mul)
}  # fmt: skip
_LINEAR = {
    _ATEN.cat, _ATEN.clone, _ATEN.copy, _ATEN.diagonal, _ATEN.expand,
    _ATEN.gather, _ATEN.permute, _ATEN.select, _ATEN.slice, _ATEN.slice_scatter, _ATEN.split_with_sizes,
    _ATEN.squeeze, _ATEN.sum, _ATEN.unfold, _ATEN.unsqueeze, _ATEN.view, _ATEN.where,
}  # fmt: skip
