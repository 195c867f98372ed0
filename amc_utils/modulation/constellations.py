"""Ideal symbols of the linear modulations, unit mean power, with the source of each geometry."""

from __future__ import annotations

from functools import cache

import numpy as np

# Rings as (radius relative to the innermost, number of points, phase of the first point in rad).
# 16APSK and 32APSK: code rate 9/10 of DVB-S2, ETSI EN 302 307-1, section 5.4.
# 64APSK: 4+12+20+28 of code rate 132/180 of DVB-S2X, ETSI EN 302 307-2, section 5.4.
_APSK_RINGS = {
    "16APSK": ((1.0, 4, np.pi / 4), (2.57, 12, np.pi / 12)),
    "32APSK": ((1.0, 4, np.pi / 4), (2.53, 12, np.pi / 12), (4.30, 16, 0.0)),
    "64APSK": (
        (1.0, 4, np.pi / 4),
        (2.4, 12, np.pi / 12),
        (4.3, 20, np.pi / 20),
        (7.0, 28, np.pi / 28),
    ),
}

# 128APSK of code rate 135/180 of DVB-S2X, ETSI EN 302 307-2, section 5.4: radius and the phases of
# the first quadrant in units of pi/5040; the other quadrants mirror it. The rings at 2.681 and 2.75
# are that close in the standard too.
_APSK128_FIRST_QUADRANT = (
    (1.0, (332, 927, 1593, 2187)),
    (1.715, (242, 1017, 1503, 2278)),
    (2.118, (414, 845, 1673, 2106)),
    (2.681, (427, 834, 1686, 2094)),
    (2.75, (133, 1126, 1393, 2387)),
    (3.819, (111, 330, 528, 732, 929, 1149, 1372, 1590, 1789, 1993, 2190, 2408)),
)


def _psk(order: int, first_phase_rad: float = 0.0) -> np.ndarray:
    return np.exp(1j * (2 * np.pi * np.arange(order) / order + first_phase_rad))


def _ask(order: int) -> np.ndarray:
    """Bipolar amplitude levels, evenly spaced about zero."""
    return np.arange(1 - order, order, 2).astype(complex)


def _unipolar_ask(order: int) -> np.ndarray:
    """Amplitude levels from zero up: a carrier is sent along."""
    return np.arange(order).astype(complex)


def _qam(order: int) -> np.ndarray:
    """Square grid; for odd powers of two the cross that leaves the corners out."""
    side = int(np.ceil(np.sqrt(order)))
    if side * side != order:
        side = {32: 6, 128: 12}[order]
    levels = np.arange(1 - side, side, 2)
    grid = (levels[:, None] + 1j * levels[None, :]).ravel()
    corner = {32: 3, 128: 7}.get(order, side)
    return grid[(np.abs(grid.real) <= corner) | (np.abs(grid.imag) <= corner)]


def _apsk(name: str) -> np.ndarray:
    return np.concatenate([radius * _psk(points, phase) for radius, points, phase in _APSK_RINGS[name]])


def _apsk128() -> np.ndarray:
    quadrant = np.concatenate(
        [r * np.exp(1j * np.pi / 5040 * np.array(phases)) for r, phases in _APSK128_FIRST_QUADRANT]
    )
    return np.concatenate([quadrant, -quadrant, quadrant.conj(), -quadrant.conj()])


_POINTS = {
    "OOK": lambda: _unipolar_ask(2),
    "4ASK": lambda: _ask(4),
    "8ASK": lambda: _ask(8),
    "BPSK": lambda: _psk(2),
    "QPSK": lambda: _psk(4, np.pi / 4),
    "8PSK": lambda: _psk(8),
    "16PSK": lambda: _psk(16),
    "32PSK": lambda: _psk(32),
    "16APSK": lambda: _apsk("16APSK"),
    "32APSK": lambda: _apsk("32APSK"),
    "64APSK": lambda: _apsk("64APSK"),
    "128APSK": _apsk128,
    "16QAM": lambda: _qam(16),
    "32QAM": lambda: _qam(32),
    "64QAM": lambda: _qam(64),
    "128QAM": lambda: _qam(128),
    "256QAM": lambda: _qam(256),
    "OQPSK": lambda: _psk(4, np.pi / 4),
}

LINEAR_MODULATIONS = tuple(_POINTS)
_UNIPOLAR_POINTS = {"4ASK": lambda: _unipolar_ask(4), "8ASK": lambda: _unipolar_ask(8)}


@cache
def symbol_map(modulation_name: str, *, unipolar_ask: bool = False) -> np.ndarray:
    """Ideal symbols of a modulation, complex128 [order], unit mean power.

    Args:
        modulation_name: one of LINEAR_MODULATIONS.
        unipolar_ask: whether the levels of 4ASK and 8ASK begin at zero; else zero is in their middle.

    Raises:
        ValueError: a modulation that is not linear, so has no symbols to draw from.
    """
    if modulation_name not in _POINTS:
        raise ValueError(
            f"modulation {modulation_name!r} has no symbol map; the linear modulations have one: "
            f"{', '.join(LINEAR_MODULATIONS)}"
        )
    makers = _POINTS | (_UNIPOLAR_POINTS if unipolar_ask else {})
    points = makers[modulation_name]()
    points = points / np.sqrt(np.mean(np.abs(points) ** 2))
    points.flags.writeable = False  # cached, so shared by every caller
    return points
