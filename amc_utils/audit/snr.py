"""What a sample of a file's frames tells about their SNR, level by level and class by class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from amc_utils.dsp.features import SnrLine
from amc_utils.modulation.constellations import LINEAR_MODULATIONS

# Errors of the SNR that a frame's spectrum gives, at high SNR, and what the symbols of one frame add.
_FLOOR_DB, _SYMBOLS_DB = 0.27, 0.4
_LOWEST_CELL_DB = -10
# Levels whose measured SNR is less sure than that have the SNR that their label says.
_KNOWN_DB = 1.0
# Single frames of a level spread by less than that where all have its SNR.
WIDE_SPREAD_DB = 0.7


def frame_snr_db(frames: pd.DataFrame, levels: pd.DataFrame, line: SnrLine) -> np.ndarray:
    """SNR per sample in dB of each frame, float64 [N]: that of its level, else what its label says.

    Args:
        frames: see frame_measures.
        levels: see features.level_table; of analogue classes alone only labels tell.
        line: relates the two.
    """
    levels = levels.set_index("level")
    told = line.is_told and np.isfinite(line.offset_db)
    said = levels.index.to_series().astype(float)
    said = line.snr_db(said) if told else said
    measured = levels["measured_db"].where(levels["error_db"] < _KNOWN_DB, said).fillna(said)
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
        frames: see frame_measures.
        levels: see features.level_table; what noise there is decides how sure a cell is.
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
