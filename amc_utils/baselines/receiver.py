"""A likelihood receiver without a genie: it averages over what that of baselines.bounds knows.

It averages over carrier phase, over the offset with the spread that the channel gives it, and over four
timings: the estimated one and those up to three quarters of a symbol later. Roll-off is estimated. SNR
follows from the energies in and out of the band. What lies between the bound and this receiver is the
price of synchronisation and of this receiver's own limits: it drops symbols at the ends, takes
interference between symbols for noise, and looks at symbols for the two likeliest SNR labels only. It
is a mark to reach, not a bound.

Such a receiver is known as average likelihood ratio test (ALRT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from amc_utils.baselines.bounds import energy_fit
from amc_utils.dsp.likelihood import FINE, blind_label, label_powers, likelihood_ratios
from amc_utils.dsp.receiver_settings import DEFAULT_RECEIVER, ReceiverSettings
from amc_utils.dsp.synchronisation import ReceivedBatch
from amc_utils.modulation.constellations import LINEAR_MODULATIONS
from amc_utils.signals import SAMPLES_PER_SYMBOL, Channel

# SNR labels per frame for which symbols are looked at.
_NUM_CANDIDATES = 2
# On a CPU the temporaries of so many frames stay in the cache.
_FRAMES_AT_ONCE = 32


def receiver_log_likelihoods(
    iq: Tensor,
    *,
    modulations: Sequence[str],
    snr_labels: Sequence[float],
    channel: Channel,
    receiver: ReceiverSettings = DEFAULT_RECEIVER,
) -> Tensor:
    """Log-likelihood of every class, float32 [B, num_modulations, num_labels], but for a constant.

    A silent frame, or one with samples that are no numbers, has the same likelihood in all classes. The
    scale of frames says nothing here.

    Args:
        iq: complex64 [B, num_samples], 8 samples per symbol.
        modulations: hypotheses.
        snr_labels: hypotheses; where none is a frame's SNR to half a decibel, its amplitude is taken
            wrongly and so is its modulation.
        channel: gives the SNRs of the labels, the levels of ASK and the spread of the carrier offset.
        receiver: what synchronisation knows about the channel.
    """
    options = {"modulations": tuple(modulations), "snr_labels": tuple(snr_labels)}
    options |= {"channel": channel, "receiver": receiver}
    found = torch.cat([_log_likelihoods(part, **options) for part in iq.split(_FRAMES_AT_ONCE)])
    says_something = found.isfinite().all(2).all(1) & (iq != 0).any(1)
    return torch.where(says_something[:, None, None], found, 0)


def _log_likelihoods(
    iq: Tensor,
    modulations: tuple[str, ...],
    snr_labels: tuple[float, ...],
    channel: Channel,
    receiver: ReceiverSettings,
) -> Tensor:
    known = replace(receiver, channel=channel, snr_labels=snr_labels)
    frames = ReceivedBatch(iq, known)
    symbols = frames.timed.symbols * frames.received_noise_power.rsqrt()[:, None]
    rated = [LINEAR_MODULATIONS.index(name) for name in modulations]
    power = label_powers(known, iq.device)[1][rated]
    outside = iq.shape[1] * (1 - 1 / SAMPLES_PER_SYMBOL)
    size = symbols.shape[1] + int(outside)
    fit = torch.stack([energy_fit(symbols, outside, size, total - 1) for total in power], 1)
    candidates = fit.logsumexp(1).topk(min(_NUM_CANDIDATES, len(snr_labels)), 1).indices
    if receiver.is_blind:
        # After an equaliser symbols have the noise of another label than the frame's.
        return fit + likelihood_ratios(frames, blind_label(frames), FINE)[:, rated, None]
    ratios = [likelihood_ratios(frames, label, FINE)[:, rated] for label in candidates.T]
    # Other labels fit the energies less well, and so does any modulation at them.
    rating = ratios[0][..., None].repeat(1, 1, len(snr_labels))
    place = candidates[:, None].expand(-1, len(modulations), -1)
    return fit + rating.scatter(2, place, torch.stack(ratios, 2))
