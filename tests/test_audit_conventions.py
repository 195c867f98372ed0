"""The audit of files as makers write them: SNR conventions, channels, scales, and genuine excerpts."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from audited import (
    TABLE_1,
    altered,
    failures,
    of_all_classes,
    simulated,
    twin,
    verdicts,
)
from files import EXCERPTS, needs_excerpts

from amc_utils import signals
from amc_utils.audit.audit import audit
from amc_utils.audit.identify import known_preset, name_frames, with_pulse
from amc_utils.audit.measures import channel_spread, fit_pulse, mean_density
from amc_utils.audit.report import page
from amc_utils.data import synthesise_frames
from amc_utils.dsp.features import snr_ratio
from amc_utils.dsp.receiver_settings import RECEIVERS
from amc_utils.modulation import constellations
from amc_utils.signals import FILE_CHANNELS, RADIOML_2018_MODULATIONS, Channel

NOTHING = set()
# Channel; what fails; the beginning of what is said about labels; the preset that is named.
CASES = {
    "twin": (twin(), NOTHING, "as in RadioML 2018.01A: true SNR is twice the label", "radioml_2018"),
    "table_1": (TABLE_1, NOTHING, "labels are the SNR per sample", "table_1"),
    "Es/N0": (
        replace(TABLE_1, snr_offset_db=-9.03), {"SNR convention"}, "labels are Es/N0", "table_1 but",
    ),
    "slope 1.5": (
        twin(snr_slope=1.5), {"SNR convention"}, "labels fit no convention", "radioml_2018 but",
    ),
    "slope 3": (
        twin(snr_slope=3.0), {"SNR convention"}, "labels fit no convention", "radioml_2018 but",
    ),
    "labels 4 too high": (
        twin(snr_offset_db=-8.0), {"SNR convention"}, "labels fit no convention", "radioml_2018 but",
    ),
    "roll-off 0.38": (twin(rolloff=0.38), NOTHING, "as in RadioML 2018.01A", "radioml_2018"),
    "roll-off 0.44": (twin(rolloff=0.44), NOTHING, "as in RadioML 2018.01A", "radioml_2018"),
    # What is not known of the real file: 0.3 dB of SNR, and whether symbols fall between two samples.
    "0.3 dB more": (twin(snr_offset_db=0.3), NOTHING, "as in RadioML 2018.01A", "radioml_2018"),
    "per sample, with the real pulse": (
        twin(snr_slope=1.0), NOTHING, "labels are the SNR per sample", "radioml_2018 but",
    ),
    "bipolar ASK": (
        twin(unipolar_ask=False), NOTHING, "as in RadioML 2018.01A", "radioml_2018 but",
    ),
    "unipolar ASK in table_1": (
        replace(TABLE_1, unipolar_ask=True), NOTHING, "labels are the SNR per sample", "table_1 but",
    ),
    "two filters in a row": (
        twin(pulse_exponents=(1.0,)), NOTHING, "as in RadioML 2018.01A", "radioml_2018 but",
    ),
    "unit power per frame": (
        twin(record_scale=False), NOTHING, "as in RadioML 2018.01A", "radioml_2018 but",
    ),
    "any timing, clocks that drift": (
        twin(whole_sample_timing=False, clock_std=1e-4), NOTHING, "as in RadioML", "radioml_2018 but",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_files_of_each_convention_are_called_what_they_are(case):
    channel, failed, said, preset = CASES[case]
    report = audit(simulated(channel, snr_labels=(0, 8, 30), num_frames_per_cell=5))
    assert failures(report) == failed, page(report)
    found = verdicts(report)
    assert found["SNR convention"]["what"].startswith(said)
    if preset.endswith(" but"):
        assert found["channel preset"]["result"] == "remark"
        assert f"{preset.split()[0]} does but for" in found["channel preset"]["what"]
    else:
        assert found["channel preset"]["what"].endswith(f"{{preset: {preset}}}")
    assert report["snr"]["measured_slope"] == pytest.approx(channel.snr_slope, abs=0.03)
    assert report["channel"]["pulse"]["exponent"] == pytest.approx(channel.pulse_exponent, abs=0.15)


# Radii relative to the innermost ring: code rate 3/4 of DVB-S2 instead of 9/10, and evenly spaced.
RINGS = {
    "of another code rate": {"16APSK": (1, 2.85), "32APSK": (1, 2.72, 4.87)},
    "evenly spaced": {"16APSK": (1, 2), "32APSK": (1, 2, 3), "64APSK": (1, 2, 3, 4)},
}


@pytest.fixture
def others_signals(monkeypatch):
    """The generator's constants may be changed; what it keeps of them goes with the test."""
    kept = (constellations.symbol_map, signals.symbol_table, signals._excess_db)

    def forget():
        for cached in kept:
            cached.cache_clear()

    forget()
    with monkeypatch.context() as patched:
        yield patched, forget
    forget()


@pytest.mark.parametrize("rings", RINGS)
def test_other_rings_of_apsk_are_a_remark_at_most(rings, others_signals):
    """Excerpts of the real file show no APSK; a name that is exchanged fails all the same."""
    patched, forget = others_signals
    other = dict(constellations._APSK_RINGS)
    for name, radii in RINGS[rings].items():
        other[name] = tuple((r, *ring[1:]) for r, ring in zip(radii, other[name], strict=True))
    patched.setattr(constellations, "_APSK_RINGS", other)
    path = simulated(
        twin(cfo_std=3.2e-5), modulations=RADIOML_2018_MODULATIONS, snr_labels=(22, 24, 30),
        num_frames_per_cell=4, seed=list(RINGS).index(rings),
    )  # fmt: skip
    patched.undo()
    forget()
    report = audit(path)
    assert report["passed"], page(report)
    assert verdicts(report)["label order"]["result"] == "ok"


def test_am_of_a_weaker_carrier_is_a_remark_at_most(others_signals):
    """What makers call AM differs: a message of half the carrier's amplitude."""
    patched, forget = others_signals
    patched.setattr("amc_utils.modulation.analogue.AM_INDEX", 0.5)
    path = simulated(
        twin(cfo_std=3.1e-5), modulations=RADIOML_2018_MODULATIONS, snr_labels=(22, 24, 30),
        num_frames_per_cell=4, seed=4,
    )  # fmt: skip
    patched.undo()
    forget()
    report = audit(path)
    assert report["passed"], page(report)


def scaled(low):
    """Each frame scaled by its own minimum and maximum to the range from `low` to 1."""

    def change(parts):
        flat = parts["X"].reshape(len(parts["X"]), -1)
        least, most = flat.min(1)[:, None, None], flat.max(1)[:, None, None]
        parts["X"] = low + (1 - low) * (parts["X"] - least) / (most - least)

    return change


@pytest.mark.parametrize("low", [0, -1])
def test_frames_scaled_by_their_extremes_are_not_called_wrong_labels(low, tmp_path):
    report = audit(altered(of_all_classes("radioml_2018"), tmp_path / "scaled.h5", scaled(low)))
    assert failures(report) == {"scale of each frame"}
    said = verdicts(report)
    assert (
        f"100% of frames reach from {low} to 1: each was scaled" in said["scale of each frame"]["what"]
    )
    assert said["label order"]["result"] == "cannot tell"
    assert page(report).endswith("FAILED: scale of each frame")


@pytest.mark.parametrize("silent", ["the second half", "every other sample"])
def test_half_silent_frames_are_not_called_wrong_labels(silent, tmp_path):
    def change(parts):
        if silent == "the second half":
            parts["X"][:, 512:] = 0
        else:
            parts["X"][:, 1::2] = 0

    report = audit(altered(of_all_classes("radioml_2018"), tmp_path / "silent.h5", change))
    assert failures(report) == {"frames silent in part"}
    assert (
        f"{report['frames']} of {report['frames']} frames"
        in verdicts(report)["frames silent in part"]["what"]
    )
    assert verdicts(report)["label order"]["result"] == "cannot tell"


def test_a_few_silent_frames_are_named_and_the_rest_is_judged(gnuradio_slice, tmp_path):
    def change(parts):
        parts["X"][[3, 40], 500:] = 0

    report = audit(altered(gnuradio_slice, tmp_path / "silent.h5", change))
    assert failures(report) == {"frames silent in part"}
    assert "rows 3, 40" in verdicts(report)["frames silent in part"]["what"]
    assert verdicts(report)["label order"]["result"] == "ok"


def test_whole_numbers_do_not_make_ook_silent(tmp_path):
    """Eight bits round what OOK sends for a zero to nothing."""

    def change(parts):
        parts["X"] = np.round(parts["X"] * 40).clip(-127, 127).astype(np.int8)

    report = audit(altered(of_all_classes("radioml_2018"), tmp_path / "int8.h5", change))
    assert not failures(report) & {"frames silent in part", "scale of each frame", "label order"}


@pytest.mark.parametrize("preset", FILE_CHANNELS)
@pytest.mark.parametrize(("num_frames", "room"), [(40, (0.15, 0.1)), (400, (0.05, 0.03))])
def test_pulse_is_measured_as_it_was_made(preset, num_frames, room):
    frames = synthesise_frames(
        modulations=("QPSK", "16QAM"), snr_labels=(30,), num_frames_per_cell=num_frames // 2, seed=1,
        channel=FILE_CHANNELS[preset],
    )  # fmt: skip
    label = frames.modulation.numpy()
    pulse = fit_pulse(*mean_density(frames.iq(torch.arange(num_frames)), label))
    low, high = FILE_CHANNELS[preset].rolloff_range
    assert pulse["exponent"] == pytest.approx(FILE_CHANNELS[preset].pulse_exponent, abs=room[0])
    assert pulse["rolloff"] == pytest.approx((low + high) / 2, abs=room[1])


@pytest.mark.parametrize("preset", FILE_CHANNELS)
def test_timing_and_carrier_spread_as_they_were_made(preset):
    frames = synthesise_frames(
        modulations=("QPSK", "16QAM"), snr_labels=(30,), num_frames_per_cell=150, seed=1,
        channel=FILE_CHANNELS[preset],
    )  # fmt: skip
    spread = channel_spread(frames.iq(torch.arange(300)), RECEIVERS[preset])
    assert spread["cfo_std"] == pytest.approx(FILE_CHANNELS[preset].cfo_std, rel=0.15)
    assert (spread["fraction_concentration"] > 0.9) == FILE_CHANNELS[preset].whole_sample_timing
    if FILE_CHANNELS[preset].whole_sample_timing:
        assert spread["timing_fraction"] == pytest.approx(0.5, abs=0.02)


@needs_excerpts
def test_genuine_stretches_have_the_pulse_and_the_noise_of_the_twin():
    with np.load(EXCERPTS / "bpsk_qpsk_label30_first128.npz") as held:
        iq, label = torch.from_numpy(held["iq"]), held["modulation"]
    pulse = fit_pulse(*mean_density(iq, label))
    assert pulse["exponent"] == pytest.approx(1.5, abs=0.1)
    assert 0.38 <= pulse["rolloff"] <= 0.44
    for name, excess_db in {"BPSK": 0.84, "QPSK": 0.40}.items():
        ratio = snr_ratio(iq[torch.from_numpy(label == name)])
        # The median leaves out a frame that is broken; twice the label is 60 dB.
        assert 10 * np.log10(float(ratio.median())) == pytest.approx(60 + excess_db, abs=0.5)


@needs_excerpts
@pytest.mark.parametrize(
    "known",
    [
        known_preset("radioml_2018"),
        with_pulse(known_preset("radioml_2018"), {"exponent": 1.46, "rolloff": 0.397}),
    ],
    ids=["the preset", "as measured"],
)
def test_genuine_frames_are_named(known):
    with np.load(EXCERPTS / "four_whole_frames.npz") as held:
        iq, snr_db = torch.from_numpy(held["iq"]), held["snr_per_sample_measured_db"]
        names = [str(name).removesuffix(" (inferred)") for name in held["modulation"]]
    named = [RADIOML_2018_MODULATIONS[n] for n in name_frames(iq, snr_db, known)]
    assert [named[names.index(name)] for name in ("16PSK", "BPSK")] == ["16PSK", "BPSK"]


def test_label_line_is_what_a_report_keeps():
    """A reader of the report alone can say which SNR a label means."""
    report = audit(simulated("radioml_2018"))
    snr = report["snr"]
    assert snr["slope"] * 6 + snr["offset_db"] == pytest.approx(Channel().snr_db(6) + 0.7, abs=0.3)
    with h5py.File(simulated("radioml_2018")) as file:
        assert set(snr["labels"]) <= set(file["Z"][:, 0].tolist())
