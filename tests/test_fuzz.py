"""Damaged files and random parameters: taken, or refused in a sentence; nothing else may happen."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from files import write_radioml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amc_utils.config import TrainingParameters
from amc_utils.data import read_radioml, synthesise_frames
from amc_utils.runtime.yaml_text import read_yaml

# The same examples in every run; fixtures hold nothing that an example changes.
BOUNDED = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Where what describes the data lies, and where the data begin.
HEADER_BYTES = 4096
PLACES = st.integers(0, HEADER_BYTES - 1) | st.integers(0, 2**20)
CHANGES = st.lists(
    st.tuples(PLACES, st.sampled_from([0, 1, 127, 255]) | st.integers(0, 255)), max_size=20
)


@pytest.fixture(scope="module", params=["contiguous", "in packed chunks"])
def whole(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "frames.h5"
    frames = synthesise_frames(
        modulations=("BPSK", "QPSK"), snr_labels=(0, 20), num_frames_per_cell=3, seed=5
    )
    write_radioml(path, frames)
    if request.param != "contiguous":
        with h5py.File(path) as file:
            parts = {name: file[name][:] for name in "XYZ"}
        with h5py.File(path, "w") as file:
            for name, value in parts.items():
                file.create_dataset(name, data=value, chunks=True, compression="gzip")
    return path


def sentence(error, contained=""):
    text = str(error)
    assert "\n" not in text
    assert str(contained) in text
    assert len(text) < 1000 + 2 * len(str(contained))
    return text


@BOUNDED
@given(changes=CHANGES, share=st.none() | st.floats(0, 1))
def test_damaged_file_is_read_or_refused(whole, changes, share):
    content = bytearray(whole.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    if share is not None:
        content = content[: int(share * len(content))]
    path = whole.with_name("damaged.h5")
    path.write_bytes(content)
    try:
        frames = read_radioml(
            path=path, modulations=("BPSK", "QPSK"), snr_labels=(0, 20), num_frames_per_cell=3, seed=1
        )
    except ValueError as error:
        sentence(error, path)
    else:
        assert np.isfinite(frames.iq_pairs.numpy()).all()


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@BOUNDED
@given(
    name=st.sampled_from(sorted(TrainingParameters.model_fields)) | st.text(min_size=1, max_size=20),
    value=VALUES,
)
def test_random_parameter_is_taken_or_refused(make_config, name, value):
    values = make_config().model_dump() | {name: value}
    try:
        TrainingParameters.checked(values)
    except (ValueError, FileNotFoundError) as error:
        sentence(error)


@BOUNDED
@given(text=st.text(alphabet="abc:,-&*!?|>[]{}#%@ \n\t'\"0.1e", max_size=60) | st.text(max_size=40))
def test_random_yaml_is_read_or_refused(text):
    try:
        content = read_yaml(text, "text")
    except ValueError as error:
        sentence(error, "text must be YAML of names and plain values")
    else:
        assert all(isinstance(name, str) for name in content)
