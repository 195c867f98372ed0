"""Recordings become frames: every format alike, the rate exact, bad ones refused in a sentence."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import sigmf
from scipy.io import wavfile

from amc_utils.dsp.features import power_spectrum
from amc_utils.inference.formats import open_recording, open_recordings
from amc_utils.inference.recordings import Recording
from amc_utils.signals import NUM_SAMPLES

LENGTH = 5000


@pytest.fixture
def samples():
    rng = np.random.default_rng(3)
    return (rng.normal(size=LENGTH) + 1j * rng.normal(size=LENGTH)).astype(np.complex64)


def write_sigmf(folder, data, datatype, rate=1e6, **told):
    (folder / "r.sigmf-data").write_bytes(data)
    header = {"core:datatype": datatype, "core:version": "1.2.0", "core:sample_rate": rate} | told
    meta = {"global": header, "captures": [{"core:sample_start": 0}], "annotations": []}
    (folder / "r.sigmf-meta").write_text(json.dumps(meta), encoding="utf8")
    return folder / "r.sigmf-meta"


def as_file(kind, samples, folder):
    if kind == "raw":
        samples.tofile(folder / "r.cf32")
        return folder / "r.cf32"
    if kind == "sigmf":
        return write_sigmf(folder, samples.tobytes(), "cf32_le")
    if kind == "sigmf, 16 bits":
        pairs = np.round(samples.view(np.float32) * 4096)
        return write_sigmf(folder, pairs.astype("<i2").tobytes(), "ci16_le")
    pairs = samples.view(np.float32).reshape(-1, 2)
    arrays = {"complex": samples, "pairs": pairs, "integers": np.round(pairs * 4096).astype(np.int16)}
    arrays["columns"] = np.asfortranarray(pairs)
    np.save(folder / "r.npy", arrays[kind])
    return folder / "r.npy"


@pytest.mark.parametrize(
    "kind", ["raw", "sigmf", "sigmf, 16 bits", "complex", "pairs", "integers", "columns"]
)
def test_every_format_gives_the_same_frames(kind, samples, tmp_path):
    cut = open_recording(as_file(kind, samples, tmp_path)).frames()
    expected = samples[: LENGTH // NUM_SAMPLES * NUM_SAMPLES].reshape(-1, NUM_SAMPLES)
    expected = expected / np.sqrt(np.mean(np.abs(expected) ** 2, axis=1, keepdims=True))
    np.testing.assert_allclose(cut.iq, expected, atol=2e-4)
    assert cut.start.tolist() == [0, 1024, 2048, 3072]
    assert cut.num_silent == 0


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize(
    "datatype", [f"c{kind}_{order}" for kind in ("f32", "f64", "i32", "i16") for order in ("le", "be")]
    + ["cu32_le", "cu16_be", "ci8", "cu8"]
)  # fmt: skip
def test_samples_of_sigmf_are_those_that_its_library_reads(datatype, archived, tmp_path):
    """Up to the scale, of which frames know nothing."""
    kind, _, order = datatype.removeprefix("c").partition("_")
    dtype = np.dtype(f"{'>' if order == 'be' else '<'}{kind[0]}{int(kind[1:]) // 8}")
    rng = np.random.default_rng(6)
    low, high = (0, 2**31) if kind[0] == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    pairs = rng.integers(low, high, (LENGTH, 2)).astype(dtype)
    path = write_sigmf(tmp_path, pairs.tobytes(), datatype)
    theirs = sigmf.fromfile(path)
    if archived:
        path = Path(theirs.archive(tmp_path / "r.sigmf"))
    own = open_recording(path)
    assert (own.length, own.sample_rate) == (theirs.sample_count, 1e6)
    read, expected = own.read(100, 900).astype(complex), theirs[100:900].astype(complex)
    # Of unsigned numbers the middle is between two; theirs is the upper one.
    close = 1e-2 if datatype.startswith("cu8") else 1e-4
    np.testing.assert_allclose(read / abs(read).max(), expected / abs(expected).max(), atol=close)


def test_header_and_trailer_of_a_sigmf_file_are_no_samples(samples, tmp_path):
    path = write_sigmf(
        tmp_path, b"h" * 16 + samples.tobytes() + b"t" * 5, "cf32_le", **{"core:trailing_bytes": 5}
    )
    meta = json.loads(path.read_text(encoding="utf8"))
    meta["captures"][0]["core:header_bytes"] = 16
    path.write_text(json.dumps(meta), encoding="utf8")
    recording = open_recording(path)
    assert recording.length == LENGTH
    np.testing.assert_array_equal(recording.read(0, LENGTH), samples)


def test_rate_of_a_sigmf_file_is_its_own_unless_another_is_given(samples, tmp_path):
    path = as_file("sigmf", samples, tmp_path)
    assert open_recording(path).sample_rate == 1e6
    assert open_recording(path, 2e6).sample_rate == 2e6


@pytest.mark.parametrize("given", [2.5, 6.4, 8.0, 8.0032, 10.0, 12.5, 37.0])
def test_resampling_puts_every_sample_where_a_sum_of_tones_has_it(given):
    """Three tones inside the band, evaluated at the new instants by their formula."""
    rate, symbol_rate = given * 1e5, 1e5
    frequencies_hz = np.array([-0.35, 0.02, 0.41]) * symbol_rate

    def tones(seconds):
        return np.exp(2j * np.pi * np.multiply.outer(seconds, frequencies_hz)).sum(-1)

    length = int(3000 * given)
    signal = tones(np.arange(length) / rate)
    recording = Recording("tones", length, rate, lambda first, last: signal[first:last])
    cut = recording.frames(symbol_rate=symbol_rate, num_frames=5)
    assert len(cut.iq) == 5
    for iq, start in zip(cut.iq.numpy(), cut.start, strict=True):
        # The start is rounded down to a sample of the recording.
        late = np.linspace(0, 1 / rate, 101)
        seconds = start / rate + np.arange(NUM_SAMPLES) / (8 * symbol_rate)
        wanted = tones(seconds[None] + late[:, None])
        wanted /= np.sqrt(np.mean(np.abs(wanted) ** 2, axis=1, keepdims=True))
        assert np.abs(wanted - iq).max(1).min() < 0.03


@pytest.mark.parametrize("given", [2.5, 3.0, 4.0, 5.0, 6.4, 8.0, 10.0, 20.0])
def test_noise_stays_as_dense_beside_and_beyond_the_recorded_band(given):
    """White noise of known density and a carrier: the SNR in the band of eight samples a symbol."""
    rate, snr_label = given * 1e5, 10.0
    rng = np.random.default_rng(4)
    length = int(40_000 * given / 8)
    noise = rng.normal(size=(length, 2)).view(np.complex128)[:, 0] / np.sqrt(2)
    # Of noise of unit power over the recorded band, 8 / given as much lies in the band of eight.
    signal = np.sqrt(10 ** (snr_label / 10) * 8 / given) + noise
    recording = Recording("r", length, rate, lambda first, last: signal[first:last])
    iq = recording.frames(symbol_rate=1e5).iq
    frequency, power = power_spectrum(iq)
    density = power.mean(0).numpy()
    beyond = (np.abs(frequency.numpy()) > 0.02) & (np.abs(frequency.numpy()) < 0.48)
    noise_power = 1 / (1 + 10 ** (snr_label / 10))
    assert density[beyond].mean() == pytest.approx(noise_power, rel=0.06)
    for low in (0.15, 0.3, 0.4):
        part = (np.abs(frequency.numpy()) > low) & (np.abs(frequency.numpy()) < low + 0.08)
        assert density[part].mean() == pytest.approx(noise_power, rel=0.12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_of_a_recording_does_not_matter(scale, samples):
    scaled = (samples * np.float32(scale)).astype(np.complex64)
    cuts = [
        Recording("r", LENGTH, None, lambda first, last, s=some: s[first:last]).frames().iq
        for some in (samples, scaled)
    ]
    np.testing.assert_allclose(cuts[0], cuts[1], rtol=1e-4, atol=1e-5)


def test_carrier_is_taken_out():
    rate, offset_hz = 1e6, 12_345.0
    tone = np.exp(2j * np.pi * offset_hz / rate * np.arange(4096)).astype(np.complex64)
    recording = Recording("tone", 4096, rate, lambda first, last: tone[first:last])
    iq = recording.frames(offset_hz=offset_hz).iq.numpy()
    np.testing.assert_allclose(iq, np.ones_like(iq), atol=1e-3)


def test_of_a_long_recording_only_frames_are_read():
    read = []

    def reading(first, last):
        read.append(last - first)
        return np.ones(last - first, np.complex64)

    cut = Recording("long", 10**12, 1e6, reading).frames(symbol_rate=1e5, num_frames=7)
    assert cut.start[-1] > 0.99e12
    assert sum(read) < 7 * 2 * NUM_SAMPLES


def test_silent_frames_are_left_out_and_counted():
    signal = np.concatenate([np.zeros(2048), np.ones(1024)]).astype(np.complex64)
    cut = Recording("r", len(signal), None, lambda first, last: signal[first:last]).frames()
    assert (cut.num_silent, cut.start.tolist()) == (2, [2048])


BAD = {
    "no file": (lambda folder: folder / "none.cf32", FileNotFoundError, "recording not found"),
    "another suffix": (lambda f: write(f / "r.mp3", b"x" * 64), ValueError, "must end in one of"),
    "no WAV": (lambda f: write(f / "r.wav", b"x" * 64), ValueError, "must be a whole WAV file"),
    "half a sample": (lambda f: write(f / "r.cf32", b"x" * 5), ValueError, "it has 5 bytes"),
    "two antennas": (
        lambda f: saved(f, np.ones((2, 8192), np.complex64)),
        ValueError,
        r"one recording or rows of 1,024 samples, it has shape \(2, 8192\)",
    ),
    "two arrays": (
        lambda f: np.savez(f / "r.npz", a=np.ones(4), b=np.ones(4)) or f / "r.npz",
        ValueError,
        "whole NumPy file of one array",
    ),
    "an empty raw file": (lambda f: write(f / "r.cf32", b""), ValueError, "it has 0 bytes"),
    "no NumPy file": (lambda f: write(f / "r.npy", b"x" * 64), ValueError, "whole NumPy file"),
    "real numbers": (lambda f: saved(f, np.ones(4096)), ValueError, "must hold complex samples"),
    "text": (lambda f: saved(f, np.array([["a", "b"]])), ValueError, "must hold complex samples"),
    "no SigMF": (lambda f: write(f / "r.sigmf-meta", b"{}"), ValueError, "whole SigMF"),
    "no data beside": (
        lambda f: without_data(write_sigmf(f, b"", "cf32_le")),
        FileNotFoundError,
        "samples of r.sigmf-meta not found",
    ),
    "two channels": (
        lambda f: write_sigmf(
            f, np.ones(8192, np.complex64).tobytes(), "cf32_le", **{"core:num_channels": 2}
        ),
        ValueError,
        "of one channel",
    ),
    "half an archive": (lambda f: write(f / "r.sigmf", b"x" * 600), ValueError, "whole SigMF"),
    "an unknown type": (lambda f: write_sigmf(f, b"x" * 64, "cf31_le"), ValueError, "whole SigMF"),
    "no samples": (lambda f: write_sigmf(f, b"", "cf32_le"), ValueError, "whole SigMF"),
    "a dataset elsewhere": (
        lambda f: write_sigmf(f, b"x" * 64, "cf32_le", **{"core:dataset": "../r.dat"}),
        ValueError,
        "whole SigMF",
    ),
    "metadata gone": (
        lambda f: write(f / "r.sigmf-data", b"x" * 64),
        FileNotFoundError,
        "r.sigmf-meta",
    ),
    "wrong check sum": (
        lambda f: write_sigmf(
            f, np.ones(4096, np.complex64).tobytes(), "cf32_le", **{"core:sha512": "0" * 128}
        ),
        ValueError,
        "whole SigMF recording",
    ),
}


def test_wav_is_i_and_q_or_a_real_signal(tmp_path):
    time = np.arange(20_000)
    tone = np.exp(2j * np.pi * 0.11 * time)
    pairs = np.stack([tone.real, tone.imag], 1)
    for name, content in {
        "floats.wav": pairs.astype(np.float32),
        "integers.wav": np.round(20_000 * pairs).astype(np.int16),
        "bytes.wav": np.round(100 * pairs + 127.5).astype(np.uint8),
        "mono.wav": tone.real.astype(np.float32),
    }.items():
        wavfile.write(tmp_path / name, 48_000, content)
        recording = open_recording(tmp_path / name)
        assert (recording.length, recording.sample_rate) == (20_000, 48_000)
        read = recording.read(6_000, 8_000)
        np.testing.assert_allclose(read / abs(read).mean(), tone[6_000:8_000], atol=0.02, err_msg=name)
    assert recording.notes == ("real samples made analytic",)
    assert open_recording(tmp_path / "mono.wav", 1e6).sample_rate == 1e6


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("g001_433.92M_250k.cu8", 250e3),
        ("gqrx_20210102_030405_433920000_1800000_fc.raw", 1.8e6),
        ("capture_2.4Msps.cs16", 2.4e6),
        ("capture.cf32", None),
        ("run_12.cf32", None),
    ],
)
def test_rate_in_the_name_of_a_file_is_taken(name, rate, tmp_path):
    write(tmp_path / name, bytes(4096))
    assert open_recording(tmp_path / name).sample_rate == rate


def test_raw_files_have_the_type_of_their_suffix_or_that_is_told(samples, tmp_path):
    integers = np.round(samples.view(np.float32) * 4096).astype("<i2")
    for name, told in (("r.cs16", ""), ("r.bin", "ci16"), ("r.dat", "cs16_le")):
        integers.tofile(tmp_path / name)
        read = open_recording(tmp_path / name, datatype=told).read(0, LENGTH)
        np.testing.assert_allclose(read / 4096, samples, atol=2e-4)
    with pytest.raises(ValueError, match="datatype must be like cf32, cu8 or ri16_be, got 'int16'"):
        open_recording(tmp_path / "r.bin", datatype="int16")


def test_unfinished_sample_is_left_out_and_said(samples, tmp_path):
    recording = open_recording(write(tmp_path / "r.cf32", samples.tobytes() + b"abc"))
    assert recording.length == LENGTH
    assert recording.notes == ("unfinished sample left out (3 bytes)",)


def test_each_capture_may_have_a_header_and_begin_late(samples, tmp_path):
    data = b"".join(b"head" + samples[i : i + 1000].tobytes() for i in range(0, LENGTH, 1000))
    path = write_sigmf(tmp_path, data, "cf32_le", rate="1000000")
    meta = json.loads(path.read_text(encoding="utf8"))
    meta["captures"] = [
        {"core:sample_start": i, "core:header_bytes": 4} for i in range(0, LENGTH, 1000)
    ]
    path.write_text(json.dumps(meta), encoding="utf8")
    recording = open_recording(path)
    assert (recording.length, recording.sample_rate) == (LENGTH, 1e6)
    np.testing.assert_array_equal(recording.read(500, 3500), samples[500:3500])
    path = write_sigmf(tmp_path, samples.tobytes(), "cf32_le")
    meta["captures"] = {"core:sample_start": 1500}
    path.write_text(json.dumps(meta), encoding="utf8")
    late = open_recording(path)
    assert (late.length, late.first) == (LENGTH - 1500, 1500)
    np.testing.assert_array_equal(late.read(0, 10), samples[1500:1510])


def test_archive_of_several_recordings_holds_each(samples, tmp_path):
    """Earlier the first was read, and nothing said of the other."""
    archive = tmp_path / "both.sigmf"
    with tarfile.open(archive, "w") as file:
        for name, part in (("a", samples[:2000]), ("b", samples[2000:])):
            (tmp_path / name).mkdir()
            write_sigmf(tmp_path / name, part.tobytes(), "cf32_le")
            for end in ("meta", "data"):
                file.add(tmp_path / name / f"r.sigmf-{end}", f"{name}/{name}.sigmf-{end}")
    first, second = open_recordings(archive)
    assert (first.name, second.name) == ("both.sigmf/a/a", "both.sigmf/b/b")
    np.testing.assert_array_equal(first.read(0, first.length), samples[:2000])
    np.testing.assert_array_equal(second.read(0, second.length), samples[2000:])
    with pytest.raises(
        ValueError, match=r"must hold one recording, it holds both.sigmf/a/a, both.sigmf/b/b"
    ):
        open_recording(archive)


@pytest.mark.parametrize("kind", ["raw", "sigmf, 16 bits", "complex", "pairs", "integers"])
def test_parts_of_a_file_are_read_without_the_rest(kind, samples, tmp_path):
    """Any of them, and none beyond the end."""
    recording = open_recording(as_file(kind, samples, tmp_path))
    whole = recording.read(0, LENGTH)
    assert len(whole) == LENGTH
    for first, last in ((0, 1), (7, 4000), (LENGTH - 1, LENGTH)):
        np.testing.assert_array_equal(recording.read(first, last), whole[first:last])


def test_band_of_an_annotation_is_that_about_the_capture(samples, tmp_path):
    path = write_sigmf(tmp_path, samples.tobytes(), "cf32_le")
    meta = json.loads(path.read_text(encoding="utf8"))
    meta["captures"][0]["core:frequency"] = 433e6
    edges = {"core:freq_lower_edge": 433.1e6, "core:freq_upper_edge": 433.3e6}
    meta["annotations"] = [{"core:sample_start": 0} | edges, {"core:sample_start": 0}]
    path.write_text(json.dumps(meta), encoding="utf8")
    recording = open_recording(path)
    assert recording.stretch(annotation=0).band == pytest.approx((0.1e6, 0.3e6))
    assert recording.stretch(annotation=1).band is None


def test_header_says_the_rate_before_the_name(samples, tmp_path):
    wavfile.write(tmp_path / "noaa_137.1M.wav", 48_000, samples.view(np.float32).reshape(-1, 2))
    assert open_recording(tmp_path / "noaa_137.1M.wav").sample_rate == 48_000
    samples.tofile(tmp_path / "fm_100.3MHz.cf32")
    assert open_recording(tmp_path / "fm_100.3MHz.cf32").sample_rate is None


def test_recording_without_a_number_is_no_noise(tmp_path):
    np.full(LENGTH, np.nan, np.complex64).tofile(tmp_path / "r.cf32")
    with pytest.raises(
        ValueError, match=r"r.cf32 must hold a signal, all its samples are zero or some"
    ):
        open_recording(tmp_path / "r.cf32").signals()


def test_stretches_are_told_in_seconds_or_by_an_annotation(samples, tmp_path):
    path = write_sigmf(tmp_path, samples.tobytes(), "cf32_le")
    meta = json.loads(path.read_text(encoding="utf8"))
    meta["annotations"] = [{"core:sample_start": 100, "core:sample_count": 50}]
    path.write_text(json.dumps(meta), encoding="utf8")
    recording = open_recording(path)
    for part in (recording.stretch(1e-4, 1.5e-4), recording.stretch(annotation=0)):
        assert (part.length, part.first) == (50, 100)
        np.testing.assert_array_equal(part.read(0, 50), samples[100:150])
    with pytest.raises(ValueError, match="annotation must be one of the 1"):
        recording.stretch(annotation=1)
    with pytest.raises(ValueError, match=r"must lie within its 0\.005 s"):
        recording.stretch(2.0, 3.0)


def test_frames_that_are_not_finite_are_left_out_and_counted(samples):
    holed = samples.copy()
    holed[1500] = np.nan
    cut = Recording("r", LENGTH, None, lambda first, last: holed[first:last]).frames()
    assert (cut.num_broken, cut.start.tolist()) == (1, [0, 2048, 3072])


def write(path, content):
    path.write_bytes(content)
    return path


def without_data(meta):
    meta.with_suffix(".sigmf-data").unlink()
    return meta


def saved(folder, array):
    np.save(folder / "r.npy", array)
    return folder / "r.npy"


@pytest.mark.parametrize("name", BAD)
def test_bad_recording_is_refused_in_one_sentence(name, tmp_path):
    make, kind, sentence = BAD[name]
    with pytest.raises(kind, match=sentence) as caught:
        open_recording(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rate", "options", "sentence"),
    [
        (None, {"symbol_rate": 1e5}, "sample_rate must be given with symbol_rate"),
        (None, {"offset_hz": 10.0}, "offset_hz must lie within half a sample_rate, got 10.0 of none"),
        (1e5, {"symbol_rate": 1e5}, "must have 1.9 to 4096 samples, .* make it 1$"),
        (1e6, {"symbol_rate": 1.0}, "must have 1.9 to 4096 samples"),
        (1e6, {"symbol_rate": 0.0}, "symbol_rate must be above 0 and finite, got 0.0"),
        (1e6, {"symbol_rate": np.nan}, "symbol_rate must be above 0 and finite"),
        (-1e6, {"symbol_rate": 1e5}, "sample_rate must be above 0 and finite"),
        (1e6, {"offset_hz": np.nan}, "offset_hz must lie within half a sample_rate, got nan"),
        (1e6, {"offset_hz": 6e5}, "offset_hz must lie within half a sample_rate"),
        (1e6, {"num_frames": 0}, "num_frames must be at least 1, got 0"),
        (4e6, {"symbol_rate": 1e5}, "must hold the 5,.* samples of a frame, it has 5,000"),
    ],
)
def test_rates_that_do_not_fit_are_refused(rate, options, sentence, samples):
    recording = Recording("r", LENGTH, rate, lambda first, last: samples[first:last])
    with pytest.raises(ValueError, match=sentence):
        recording.frames(**options)


@pytest.mark.parametrize(("value", "sentence"), [(0, "all its samples are zero"), (np.nan, "finite")])
def test_what_is_no_signal_is_refused(value, sentence):
    signal = np.full(2048, value, np.complex64)
    with pytest.raises(ValueError, match=sentence):
        Recording("r", 2048, None, lambda first, last: signal[first:last]).frames()
