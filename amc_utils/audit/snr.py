"""What the SNR labels of a file mean, and how exact they are, from the noise beside the signal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from amc_utils.modulation.constellations import LINEAR_MODULATIONS
from amc_utils.signals import SAMPLES_PER_SYMBOL

# Slope of the SNR per sample against the label, and the lowest and highest SNR at label 0, by each
# convention. Labels are two dB apart, so half of that decides. In RadioML 2018.01A noise has the
# standard deviation 10^(-label / 10), and classes have up to 2 dB of SNR beyond that.
# Source: docs/radioml_2018_as_measured.md.
SNR_CONVENTIONS = {
    "SNR per sample": (1.0, -1.0, 1.0),
    "Es/N0": (1.0, -10 * math.log10(SAMPLES_PER_SYMBOL) - 1, -10 * math.log10(SAMPLES_PER_SYMBOL) + 1),
    "noise standard deviation": (2.0, -1.0, 2.5),
}
# How far a measured slope may be off beside its error, and how sure a label's SNR must be, in dB.
_SLOPE_ROOM, _SURE_DB = 0.1, 0.5
# Errors of the SNR that a frame's spectrum gives, at high SNR, and what the symbols of one frame add.
_FLOOR_DB, _SYMBOLS_DB = 0.27, 0.4
_LOWEST_CELL_DB = -10
# Levels whose measured SNR is less sure than that have the SNR that their label says.
_KNOWN_DB = 1.0
# Single frames of a level spread by less than that where all have its SNR.
WIDE_SPREAD_DB = 0.7


def level_table(frames: pd.DataFrame) -> pd.DataFrame:
    """Power and measured SNR of each SNR label, from frames' columns level, power, snr_ratio, digital.

    Returns:
        Columns level: the label; power, power_low, power_high: median and 5 to 95 % range; measured_db,
        measured_db_low, measured_db_high: SNR of the level's mean ratio over digital frames, and the
        5 to 95 % range of single frames; -30 where chance makes the ratio smaller or negative;
        error_db: standard error of measured_db, infinite where fewer than two frames tell.
    """
    rows = []
    for level, group in frames.groupby("level"):
        low, median, high = group["power"].quantile([0.05, 0.5, 0.95])
        ratio = group.loc[group["digital"], "snr_ratio"]
        ratios = np.array([ratio.mean(), ratio.quantile(0.05), ratio.quantile(0.95)])
        in_db = 10 * np.log10(ratios.clip(1e-3))
        relative = ratio.sem() / max(ratios[0], 1e-3)
        error_db = 10 / math.log(10) * relative if math.isfinite(relative) else math.inf
        rows.append((level, median, low, high, *in_db, error_db))
    names = [f"{name}{end}" for name in ("power", "measured_db") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["level", *names, "error_db"])


@dataclass(frozen=True)
class SnrLine:
    """How the SNR per sample of a file's frames follows from their labels.

    Attributes:
        convention: a name of SNR_CONVENTIONS, "undecided" where none fits, "cannot tell" where too
            little was measured.
        slope: decibels of SNR per sample for a decibel of the label: the convention's, or the measured
            one where none fits.
        offset_db: SNR per sample at label 0, the median over labels.
        measured_slope: median of the slopes between all pairs of labels.
        labels: those whose measured SNR was sure enough to tell.
    """

    convention: str
    slope: float
    offset_db: float
    measured_slope: float
    labels: tuple[int, ...]

    def snr_db(self, snr_label: Any) -> Any:
        """SNR per sample in dB of an SNR label, a number or an array: of label 6, say, 12 dB."""
        return self.slope * snr_label + self.offset_db


def snr_line(levels: pd.DataFrame) -> SnrLine:
    """Convention that SNR labels follow, from columns level, measured_db, error_db of level_table."""
    seen = levels[levels["error_db"] < _SURE_DB].dropna(subset="measured_db").sort_values("level")
    label, measured = (seen[name].to_numpy(float) for name in ("level", "measured_db"))
    labels = tuple(seen["level"].tolist())
    if seen.empty:
        return SnrLine("cannot tell", math.nan, math.nan, math.nan, labels)
    slope, room = math.nan, math.inf
    if len(seen) > 1:
        one, other = np.triu_indices(len(seen), 1)
        slope = float(np.median((measured[other] - measured[one]) / (label[other] - label[one])))
        room = _SLOPE_ROOM + 3 * 2**0.5 * float(seen["error_db"].median()) / (label[-1] - label[0])
    fits = {}
    for name, (nominal, low, high) in SNR_CONVENTIONS.items():
        offset_db = float(np.median(measured - nominal * label))
        if low < offset_db < high and not abs(slope - nominal) > room:
            fits[name] = nominal, offset_db
    if len(fits) == 1:
        return SnrLine(*fits.keys(), *next(iter(fits.values())), slope, labels)
    if fits or math.isnan(slope):
        return SnrLine("cannot tell" if fits else "undecided", slope, math.nan, slope, labels)
    return SnrLine("undecided", slope, float(np.median(measured - slope * label)), slope, labels)


def frame_snr_db(frames: pd.DataFrame, levels: pd.DataFrame, line: SnrLine) -> np.ndarray:
    """SNR per sample in dB of each frame, float64 [N]: that of its level, else what its label says.

    Args:
        frames: see measures.frame_measures.
        levels: see level_table; of analogue classes alone only labels tell.
        line: relates the two.
    """
    levels = levels.set_index("level")
    labelled = levels.index.to_series().astype(float)
    labelled = line.snr_db(labelled) if np.isfinite(line.offset_db) else labelled
    measured = levels["measured_db"].where(levels["error_db"] < _KNOWN_DB, labelled).fillna(labelled)
    return measured[frames["level"]].to_numpy()


def snr_spread(frames: pd.DataFrame, line: SnrLine) -> float | None:
    """Standard deviation in dB of single frames' SNR within a level, of linear classes at 8 to 20 dB.

    Against the mean of each class, since classes may differ. Where every frame has its level's SNR it
    is 0.3 to 0.5. None for too few frames.
    """
    wanted = frames["name"].isin(LINEAR_MODULATIONS) & line.snr_db(frames["level"]).between(7, 21)
    wanted = frames[wanted]
    off = 10 * np.log10(wanted["snr_ratio"].clip(lower=1e-3)) - line.snr_db(wanted["level"])
    off = off - off.groupby(wanted["name"]).transform("mean")
    single = off.groupby(wanted["level"])
    # The means take a degree of freedom of each class.
    freedom = (len(off) - wanted["name"].nunique()) / max(len(off), 1)
    deviations = single.std()[single.count() >= 10]
    if not len(deviations) or freedom <= 0:
        return None
    return float(deviations.median() / freedom**0.5)


def cell_measures(frames: pd.DataFrame, levels: pd.DataFrame, line: SnrLine) -> pd.DataFrame:
    """Measured SNR of each (modulation, level) cell of linear classes and GMSK.

    Args:
        frames: see measures.frame_measures.
        levels: see level_table; what noise there is decides how sure a cell is.
        line: what the SNR should be.

    Returns:
        Columns name, level, measured_db, deviation_db: measured less the slope times the label, and
        error_db: standard error of the mean over the cell's frames.
    """
    expected_db = line.snr_db(frames["level"])
    known = frames["name"].isin((*LINEAR_MODULATIONS, "GMSK")) & (expected_db >= _LOWEST_CELL_DB)
    groups = frames[known].groupby(["name", "level"])
    cells = groups["snr_ratio"].agg(ratio="mean", frames="count").reset_index()
    cells["measured_db"] = 10 * np.log10(cells.pop("ratio").clip(lower=1e-3))
    level_db = levels.set_index("level")["measured_db"][cells["level"]].to_numpy()
    ratio = 10 ** (np.where(np.isnan(level_db), line.snr_db(cells["level"]), level_db) / 10)
    single = np.hypot(_SYMBOLS_DB, _FLOOR_DB * (1 + ratio) / ratio)
    cells["error_db"] = single / np.sqrt(cells.pop("frames"))
    return cells.assign(deviation_db=cells["measured_db"] - line.slope * cells["level"])
