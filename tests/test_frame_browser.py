"""The browser of notebook 04: controls choose frames, maps are what they claim to be."""

from __future__ import annotations

import re
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from amc_utils.images import network_input
from amc_utils.inference.classifier import load_classifier
from amc_utils.widgets.frame_browser import METHODS, FrameBrowser, attribution


@pytest.fixture(scope="module")
def classifier():
    return load_classifier()


@pytest.fixture(scope="module")
def images(classifier, request):
    browser = FrameBrowser(classifier, "16QAM", 20)
    iq = browser._frames.iq(browser._index[:1])
    return network_input(iq, classifier.config.channels, classifier.config.image_size)[0]


def test_integrated_gradients_add_up_to_what_the_image_changes(classifier, images):
    """Completeness: the sum is the logit less that of the empty image."""
    with torch.no_grad():
        logits = classifier.network(torch.stack([images, torch.zeros_like(images)])).modulation
    target = int(logits[0].argmax())
    found = attribution(
        classifier.network, images, head="modulation", target=target, method="integrated gradients"
    )
    difference = float(logits[0, target] - logits[1, target])
    assert float(found.sum()) == pytest.approx(difference, rel=0.1)


def test_blanking_what_speaks_for_a_class_takes_its_logit(classifier, images):
    with torch.no_grad():
        logits = classifier.network(images[None]).modulation[0]
    target = int(logits.argmax())
    found = attribution(
        classifier.network, images, head="modulation", target=target, method="occlusion"
    )
    channel, row, column = np.unravel_index(int(found.argmax()), found.shape)
    blanked = images.clone()
    blanked[channel, max(row - 4, 0) : row + 5, max(column - 4, 0) : column + 5] = 0
    with torch.no_grad():
        less = classifier.network(blanked[None]).modulation[0, target]
    assert less < logits[target]


def test_controls_choose_frames_and_redraw(classifier, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "04.ipynb")
    browser = FrameBrowser(classifier, "64QAM", 10)

    def drawn():
        words, image = browser.widget.children[1:]
        return words.value, np.asarray(Image.open(BytesIO(image.value))).tobytes()

    seen = {drawn()}
    for control, value in [
        ("frame", 1),
        ("head", "snr"),
        ("method", "integrated gradients"),
        ("show", "wrong ones"),
        ("snr_label", 20),
        ("modulation", "QPSK"),
    ]:
        browser.controls[control].value = value
        seen.add(drawn())
    assert len(seen) == 7
    assert "is QPSK at label 20" in browser.widget.children[1].value
    plt.close("all")


def test_wrong_ones_are_wrong(classifier):
    """By the words on the page, frame by frame, and as many as are wrong among all."""
    browser = FrameBrowser(classifier, "128QAM", 10)

    def read():
        for number in range(browser.controls["frame"].max + 1):
            browser.controls["frame"].value = number
            yield re.search(r"read as (\w+) \(.*\) at label (-?\d+) ", browser.words()).groups()

    among_all = sum(said != ("128QAM", "10") for said in read())
    browser.controls["show"].value = "wrong ones"
    shown = list(read())
    assert len(shown) == among_all > 0
    assert all(said != ("128QAM", "10") for said in shown)


def test_headless_the_board_stands_and_no_widget(classifier, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    browser = FrameBrowser(classifier, "QPSK", 20)
    assert browser.show() is None
    fig = browser.figure()
    assert len(fig.axes) == 8
    plt.close(fig)


def test_only_images_can_be_explained(classifier):
    with pytest.raises(ValueError, match="attribution needs images"):
        attribution(classifier.network, torch.zeros(2, 1024), head="snr", target=0, method=METHODS[0])
    with pytest.raises(ValueError, match="method must be one of"):
        attribution(classifier.network, torch.zeros(3, 64, 64), head="snr", target=0, method="guess")
