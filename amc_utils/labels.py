"""Names of modulations and SNR levels: RadioML 2018.01A's label order, the digital 17, families."""

from __future__ import annotations

from collections.abc import Sequence

# The order that the data of RadioML 2018.01A follow. The classes.txt shipped with the file is in
# another, wrong order. Source: issue 25 of the repository radioML/dataset.
RADIOML_2018_MODULATIONS = (
    "OOK", "4ASK", "8ASK", "BPSK", "QPSK", "8PSK", "16PSK", "32PSK", "16APSK", "32APSK", "64APSK",
    "128APSK", "16QAM", "32QAM", "64QAM", "128QAM", "256QAM", "AM-SSB-WC", "AM-SSB-SC",
    "AM-DSB-WC", "AM-DSB-SC", "FM", "GMSK", "OQPSK",
)  # fmt: skip

FAMILY_OF_MODULATION = {
    "OOK": "ASK", "4ASK": "ASK", "8ASK": "ASK", "BPSK": "PSK", "QPSK": "PSK", "8PSK": "PSK",
    "16PSK": "PSK", "32PSK": "PSK", "OQPSK": "OQPSK", "16APSK": "APSK", "32APSK": "APSK",
    "64APSK": "APSK", "128APSK": "APSK", "16QAM": "QAM", "32QAM": "QAM", "64QAM": "QAM",
    "128QAM": "QAM", "256QAM": "QAM", "AM-SSB-WC": "analogue", "AM-SSB-SC": "analogue",
    "AM-DSB-WC": "analogue", "AM-DSB-SC": "analogue", "FM": "analogue", "GMSK": "GMSK",
}  # fmt: skip

# What the signal itself shows at high SNR, whatever the label says: a real-valued signal squares to a
# spectral line, a transmitted carrier is one, FM and GMSK have a constant envelope.
SIGNATURE_OF_MODULATION = dict.fromkeys(RADIOML_2018_MODULATIONS, "neither") | {
    "OOK": "spectral line", "4ASK": "spectral line", "8ASK": "spectral line",
    "BPSK": "spectral line", "AM-SSB-WC": "spectral line", "AM-DSB-WC": "spectral line",
    "AM-DSB-SC": "spectral line", "FM": "constant envelope", "GMSK": "constant envelope",
}  # fmt: skip

# The list in the classes.txt shipped with RadioML 2018.01A, kept to recognise files labelled by it.
SHIPPED_WRONG_MODULATIONS = (
    "32PSK", "16APSK", "32QAM", "FM", "GMSK", "32APSK", "OQPSK", "8ASK", "BPSK", "8PSK",
    "AM-SSB-SC", "4ASK", "16PSK", "64APSK", "128QAM", "128APSK", "AM-DSB-SC", "AM-SSB-WC", "64QAM",
    "QPSK", "256QAM", "AM-DSB-WC", "OOK", "16QAM",
)  # fmt: skip

# All but the analogue classes, GMSK and OOK: the selection of the training log under test.
DIGITAL_MODULATIONS = tuple(
    name
    for name in RADIOML_2018_MODULATIONS
    if FAMILY_OF_MODULATION[name] not in ("analogue", "GMSK") and name != "OOK"
)

MODULATION_GROUPS = {"digital": DIGITAL_MODULATIONS, "all": RADIOML_2018_MODULATIONS}

SNR_LABELS = tuple(range(-20, 31, 2))


def expand_modulations(names: Sequence[str]) -> tuple[str, ...]:
    """Modulation names in RadioML order, with the groups "digital" (17) and "all" (24) expanded.

    Raises:
        ValueError: no name given, or a name that is neither a modulation nor a group.
    """
    unknown = [name for name in names if name not in (*RADIOML_2018_MODULATIONS, *MODULATION_GROUPS)]
    if unknown or not names:
        got = repr(unknown[0]) if unknown else "an empty list"
        raise ValueError(
            f"modulations must name classes of RadioML 2018.01A or the groups 'digital' and 'all', "
            f"got {got}; known are {', '.join(RADIOML_2018_MODULATIONS)}"
        )
    wanted = {member for name in names for member in MODULATION_GROUPS.get(name, (name,))}
    return tuple(name for name in RADIOML_2018_MODULATIONS if name in wanted)


def snr_grid(snr_range_db: Sequence[int]) -> tuple[int, ...]:
    """SNR levels in dB from [first, last, step], all on RadioML's grid of -20 to 30 dB.

    Raises:
        ValueError: not three numbers, an empty range, or a level off the grid.
    """
    grid = ()
    if len(snr_range_db) == 3 and snr_range_db[2] > 0:
        first, last, step = snr_range_db
        grid = tuple(range(first, last + 1, step))
    if not grid or grid[-1] != snr_range_db[1] or not set(grid) <= set(SNR_LABELS):
        raise ValueError(
            f"snr_range_db must be [first, last, step] in even dB from -20 to 30 and end on last, "
            f"got {list(snr_range_db)}; the whole grid is [-20, 30, 2]"
        )
    return grid
