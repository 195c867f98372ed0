"""Blind timing: from the samples of a frame to its symbols.

What a receiver for such signals knows is known here, see ReceiverSettings: 8 samples per symbol, the
shape of the pulse, the largest carrier offset. Timing and roll-off are those under which a Gaussian
signal of that bandwidth is likeliest, so no step knows the modulation; only OQPSK, whose two parts
change half a symbol apart, needs its own. Where there is nothing to find, as below the noise, something
is found at random.
"""

from __future__ import annotations

from functools import cache, cached_property

import scipy.signal
import torch
from torch import Tensor

from amc_utils.dsp.carrier import Synchronised, cfo_grid, squared_magnitude
from amc_utils.dsp.equalisation import Equalised, equalise, equaliser, taper
from amc_utils.dsp.receiver_settings import DEFAULT_RECEIVER, ReceiverSettings
from amc_utils.signals import SAMPLES_PER_SYMBOL, pulse_energy, raised_cosine, unit_phasor

# Noise over signal density that the equaliser reckons with, at most and at least.
_NOISE_RATIO_RANGE = (1e-7, 30.0)
# Signal power that is reckoned with at least, as a share of a frame's.
_LEAST_SIGNAL = 0.003
# Length of the filter that lets noise beside the signal through. With its edge at 0.12 cycles per
# sample it holds back a signal of roll-off 0.44 by 90 dB.
_NUM_HIGH_PASS_TAPS = 97
# Offsets, zeros of a Chebyshev polynomial, between which lines are interpolated to single precision.
_NUM_NODES = 12


class ReceivedBatch:
    """Frames and what several steps make of them, each made once.

    Attributes:
        iq: complex64 [B, num_samples], 8 samples per symbol.
        receiver: what is known about their channel.
    """

    def __init__(self, iq: Tensor, receiver: ReceiverSettings = DEFAULT_RECEIVER) -> None:
        self.iq, self.receiver = iq, receiver

    @cached_property
    def spectrum(self) -> Tensor:
        """Discrete Fourier transform of the frames, complex64 [B, num_samples]."""
        return torch.fft.fft(self.iq)

    @cached_property
    def outside(self) -> Tensor:
        """Noise beside the signal, white noise at the power that it has, [B, num_samples - 96].

        A long filter, of which only what whole stretches of the frame give is kept: a window or a
        frame's ends would let a millionth of the signal through, as much as all noise at 60 dB. Its
        first sample belongs to the frame's sample 48.
        """
        response = _high_pass(self.iq.shape[1], self.receiver.noise_edge, self.iq.device)
        filtered = torch.fft.ifft(self.spectrum * response)
        return filtered[:, _NUM_HIGH_PASS_TAPS - 1 :]

    @cached_property
    def noise(self) -> Tensor:
        """Noise variance per complex sample, float32 [B], from frequencies that no signal reaches."""
        return _power(self.outside).clamp_min(1e-12)

    @cached_property
    def ratio(self) -> Tensor:
        """Noise over signal density at the carrier, N0 / Es for the exponent 0.5; float32 [B]."""
        power = _power(self.iq)
        signal = torch.maximum(power - self.noise, _LEAST_SIGNAL * power).clamp_min(1e-12)
        energy = self._mean_pulse(self.iq.shape[1]).square().sum(1).mean()
        return (self.noise * energy / (SAMPLES_PER_SYMBOL * signal)).clamp(*_NOISE_RATIO_RANGE)

    @cached_property
    def bands(self) -> Tensor:
        """Spectrum to a symbol rate above and below the carrier, complex64 [B, 2, F]: all the signal.

        At frequencies 0 to 1 and -1 to 0, in symbol rates. Zeros are appended to the frames first to
        keep their two ends apart.
        """
        spectrum = torch.fft.fft(self.iq, self.iq.shape[1] + 2 * SAMPLES_PER_SYMBOL**2)
        num_bins = spectrum.shape[1] // SAMPLES_PER_SYMBOL
        return torch.stack([spectrum[:, :num_bins], spectrum[:, -num_bins:]], 1)

    @cached_property
    def blind(self) -> Equalised:
        """What equalise gives, which takes nothing of the channel as known."""
        return equalise(self.iq, self.noise)

    @cached_property
    def filtered(self) -> tuple[Tensor, Tensor]:
        """What _equalised gives for the mean roll-off, for where none is estimated."""
        if self.receiver.is_blind:
            return self.blind.bands, self.blind.noise_gain
        return _equalised(self, self._mean_pulse(self.bands.shape[2]))

    def _mean_pulse(self, num_bins: int) -> Tensor:
        rolloffs = (self.receiver.mean_rolloff,)
        return _pulses(num_bins, rolloffs, self.receiver, self.iq.device)[0]

    @cached_property
    def timed(self) -> Synchronised:
        """What synchronise gives."""
        return self.symbols_at(self._timing[1])

    @cached_property
    def timing_likelihood(self) -> Tensor:
        """By how much the best timing's log-likelihood is above the mean of all, float32 [B].

        Of Gaussian symbols; another's is lower by it times 1 - cos of the turn, one to a symbol.
        """
        return self._timing[2]

    def symbols_at(self, timing: Tensor) -> Synchronised:
        """Symbols from a timing on, float32 [B], in samples; equalised for the estimated roll-off."""
        receiver, number = self.receiver, self._timing[0]
        bands, gain = self._equalised
        symbols, power = _unit_power(_at_symbols(bands, timing, self.iq.shape[1], receiver))
        rolloff = _pulses(self.bands.shape[2], receiver.rolloffs, receiver, timing.device)[1][number]
        noise_power = self.noise * gain / power
        if receiver.is_blind:
            rolloff, noise_power = (
                self.blind.rolloff,
                torch.maximum(noise_power, self.blind.disturbance),
            )
        return Synchronised(symbols, rolloff, timing, noise_power, receiver)

    @cached_property
    def received_noise_power(self) -> Tensor:
        """Noise of a symbol after a matched filter in units of its power, float32 [B].

        An equaliser that undoes multipath leaves more, and does not tell the SNR.
        """
        if self.receiver.is_blind:
            return self.blind.ratio / (1 + self.blind.ratio)
        return self.timed.noise_power

    @cached_property
    def _timing(self) -> tuple[Tensor, Tensor, Tensor]:
        if self.receiver.is_blind:
            first = torch.zeros_like(self.blind.timing, dtype=torch.int64)
            return first, self.blind.timing, self.blind.timing_likelihood
        return estimate_timing(self)

    @cached_property
    def _equalised(self) -> tuple[Tensor, Tensor]:
        """What _equalised gives for the estimated roll-off."""
        receiver = self.receiver
        if receiver.is_blind or receiver.rolloffs == (receiver.mean_rolloff,):
            return self.filtered
        pulses = _pulses(self.bands.shape[2], receiver.rolloffs, receiver, self.iq.device)[0]
        return _equalised(self, pulses[self._timing[0]])


def synchronise(iq: Tensor, receiver: ReceiverSettings = DEFAULT_RECEIVER) -> Synchronised:
    """Symbols at the instants of greatest likelihood, through the equaliser.

    Args:
        iq: complex64 [B, num_samples], 8 samples per symbol.
        receiver: what is known about the channel.
    """
    return ReceivedBatch(iq, receiver).timed


def _pulse_and_alias(
    frequency: Tensor, rolloff: Tensor, receiver: ReceiverSettings
) -> tuple[Tensor, Tensor]:
    """Spectrum of the pulse at a frequency, and a symbol rate nearer to the carrier or beyond it."""
    distance = frequency.abs()
    own, alias = (raised_cosine(f, rolloff) for f in (distance, 1 - distance))
    return own**receiver.pulse_exponent, alias**receiver.pulse_exponent * (distance < 1)


def offset_lines(frames: ReceivedBatch) -> Tensor:
    """Lines that the square of OQPSK has at twice the carrier offset plus and minus the symbol rate.

    Returns:
        complex64 [B, 2, NUM_CFOS], in units of the power, so at most one; their phases are those at
        the middle of the frame.
    """
    bands, num_samples = frames.filtered[0], frames.iq.shape[1]
    # With as many zeros between the two bands, the signal at half the sample rate.
    slow = torch.fft.ifft(torch.cat([bands[:, 0], torch.zeros_like(bands).flatten(1), bands[:, 1]], 1))
    square = slow[:, : num_samples // 2].square()
    power = squared_magnitude(slow[:, : num_samples // 2]).sum(1).clamp_min(1e-12)
    waves, between = _square_waves(num_samples, frames.receiver, frames.iq.device)
    return (square @ waves).unflatten(1, (2, -1)) @ between / power[:, None, None]


def equalised_powers(es_n0_db: Tensor, receiver: ReceiverSettings) -> tuple[Tensor, Tensor]:
    """Power of signal and of intersymbol interference in equalised symbols of unit noise variance.

    For the exponent 0.5 they are Es/N0 and zero. Shaped like `es_n0_db`.
    """
    frequency = (torch.arange(256, device=es_n0_db.device, dtype=es_n0_db.dtype) + 0.5) / 512
    rolloff = torch.full((), receiver.mean_rolloff, device=es_n0_db.device, dtype=es_n0_db.dtype)
    own, alias = _pulse_and_alias(frequency, rolloff, receiver)
    energy = pulse_energy(rolloff, receiver.pulse_exponent)
    ratio = (energy * 10 ** (-es_n0_db / 10))[..., None]
    density = own.square() + alias.square()
    folded = density / (density + ratio)
    noise = ratio[..., 0] * (density / (density + ratio).square()).mean(-1)
    signal = folded.mean(-1).square()
    return signal / noise, (folded.square().mean(-1) - signal) / noise


def synchronise_offset(iq: Tensor, receiver: ReceiverSettings = DEFAULT_RECEIVER) -> Synchronised:
    """Symbols as those of OQPSK, the quadrature part half a symbol late.

    The mean of the phases of the two lines is twice the carrier's, half their difference the timing's.
    The offset is the one under which the two are strongest. The carrier is taken out, up to quarter
    turns; symbols of any other modulation come out as a smear.

    Args:
        iq: complex64 [B, num_samples], 8 samples per symbol.
        receiver: what is known about the channel.
    """
    num_samples, device, frames = iq.shape[1], iq.device, ReceivedBatch(iq, receiver)
    cfo, phase, timing = offset_carrier(frames)
    (bands, gain), parts = frames.filtered, []
    for late in (0.0, SAMPLES_PER_SYMBOL / 2):
        first = (timing + late) % SAMPLES_PER_SYMBOL
        start = first + receiver.guard_symbols * SAMPLES_PER_SYMBOL - num_samples / 2
        symbols = _at_symbols(bands, first, num_samples, receiver)
        instants = start[:, None] + SAMPLES_PER_SYMBOL * torch.arange(symbols.shape[1], device=device)
        parts.append(symbols * unit_phasor(-2 * torch.pi * cfo[:, None] * instants - phase[:, None]))
    symbols, power = _unit_power(torch.complex(parts[0].real, parts[1].imag))
    rolloff = torch.full_like(power, receiver.mean_rolloff)
    first = timing % SAMPLES_PER_SYMBOL
    return Synchronised(symbols, rolloff, first, frames.noise * gain / power, receiver)


def offset_carrier(frames: ReceivedBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Carrier offset, phase and timing of OQPSK from its two lines, see synchronise_offset; [B] each.

    In cycles per sample; in radians at the middle of the frame, up to quarter turns; in samples.
    """
    upper, lower = offset_lines(frames).unbind(1)
    best = (upper.abs() + lower.abs()).argmax(1, keepdim=True)
    upper, lower = (side.gather(1, best)[:, 0].angle() for side in (upper, lower))
    cfo = cfo_grid(frames.receiver, best.device)[best[:, 0]]
    # Phases and timing are those at the middle of the frame.
    timing = (lower - upper) / (4 * torch.pi) * SAMPLES_PER_SYMBOL + frames.iq.shape[1] / 2
    return cfo, (upper + lower) / 4, timing


def _equalised(frames: ReceivedBatch, pulses: Tensor) -> tuple[Tensor, Tensor]:
    """Both bands after the equaliser, and what it multiplies the noise of a symbol by, [B].

    In the exponent 0.5 the equaliser is the matched filter times a factor, which is left out: symbols
    of unit noise energy stay so.
    """
    response = equaliser(pulses, frames.ratio) * (1 + frames.ratio)[:, None, None]
    return frames.bands * response, response.square().sum((1, 2)) / response.shape[2]


def _at_symbols(bands: Tensor, timing: Tensor, num_samples: int, receiver: ReceiverSettings) -> Tensor:
    """Signal of equalised bands once per symbol from `timing` on (samples), complex64 [B, K]."""
    turn = timing * (2 * torch.pi / SAMPLES_PER_SYMBOL)
    upper = torch.arange(bands.shape[2], device=bands.device) / bands.shape[2]
    # Sampling once per symbol folds the spectrum.
    folded = bands[:, 0] + bands[:, 1] * unit_phasor(-turn)[:, None]
    symbols = torch.fft.ifft(folded * unit_phasor(upper * turn[:, None]))
    # The noise of a symbol has the variance of a sample's when the pulse has unit energy.
    symbols = symbols / SAMPLES_PER_SYMBOL**0.5
    guard = receiver.guard_symbols
    return symbols[:, guard : num_samples // SAMPLES_PER_SYMBOL - guard]


def _power(iq: Tensor) -> Tensor:
    return 2 * torch.view_as_real(iq).square().mean((1, 2))


def _unit_power(symbols: Tensor) -> tuple[Tensor, Tensor]:
    """Symbols of unit mean power in each frame, and the power that they had."""
    power = _power(symbols).clamp_min(1e-12)
    return symbols / power.sqrt()[:, None], power


@cache
def _high_pass(num_samples: int, edge: float, device: torch.device) -> Tensor:
    """Frequency response of the filter that only noise passes, complex64 [num_samples]."""
    taps = scipy.signal.firwin(_NUM_HIGH_PASS_TAPS, 2 * edge, window=("kaiser", 9.0), pass_zero=False)
    taps = torch.from_numpy(taps / (taps**2).sum() ** 0.5).to(torch.float32)
    return torch.fft.fft(taps.to(device), num_samples)


def estimate_timing(frames: ReceivedBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Number of the roll-off, int64 [B]; the first symbol's peak in [0, 8) samples; timing_likelihood.

    Where the excess band is shared, the spectrum Y holds every frequency f of the symbols twice, at f
    and f - 1 (in symbol rates), weighted with the pulse H. With D = H(f)^2 + H(f-1)^2 + N0 / Es, the
    likelihood of an instant t is sum |H Y|^2 / D + 2 Re exp(j 2 pi t) sum H(f) H(f-1) Y(f) conj Y(f-1)
    / D but for what does not depend on it: its maximum has a closed form, and over the roll-off a
    short list.
    """
    iq, receiver = frames.iq, frames.receiver
    num_symbols = iq.shape[1] // SAMPLES_PER_SYMBOL
    spectrum = torch.fft.fft(iq * taper(iq.shape[1], iq.device))
    upper, lower = spectrum[:, :num_symbols], spectrum[:, -num_symbols:]
    own, alias = _pulses(num_symbols, receiver.rolloffs, receiver, iq.device)[0].unbind(1)
    product = upper * lower.conj()
    if len(own) == 1:
        weight = own * alias / (own.square() + alias.square() + frames.ratio[:, None])
        cross = (product * weight).sum(1)
        best = torch.zeros(iq.shape[0], dtype=torch.int64, device=iq.device)
    else:
        # The sum of squares is 1 at every frequency, so noise changes no maximum.
        power_weight = torch.cat([own, alias], 1).square().T
        power = squared_magnitude(torch.cat([upper, lower], 1)) @ power_weight
        cross = torch.view_as_real(product).transpose(1, 2) @ (own * alias).T
        cross = torch.complex(cross[:, 0], cross[:, 1])
        best = (power + 2 * cross.abs()).argmax(1)
        cross = cross.gather(1, best[:, None])[:, 0] / (1 + frames.ratio)
    timing = (-cross.angle() / (2 * torch.pi) % 1.0) * SAMPLES_PER_SYMBOL
    return best, timing, 2 * cross.abs() / (frames.noise * iq.shape[1])


@cache
def _pulses(
    num_bins: int, rolloffs: tuple[float, ...], receiver: ReceiverSettings, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Pulse at frequencies 0 to 1 and -1 to 0, float32 [roll-offs, 2, num_bins]; and the roll-offs."""
    upper, rolloff = (
        torch.arange(num_bins, device=device) / num_bins,
        torch.tensor(rolloffs, device=device),
    )
    return torch.stack(_pulse_and_alias(upper, rolloff[:, None], receiver), 1), rolloff


@cache
def _square_waves(
    num_samples: int, receiver: ReceiverSettings, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Conjugate lines of a squared signal at half the sample rate, in two factors.

    At a few offsets on either side, [num_samples / 2, 2 * few], and from there to all, [few, offsets]:
    the offsets turn a frame by less than a radian or two, so that lines are polynomials in them.
    """
    instants = 2.0 * torch.arange(num_samples // 2).double()[:, None] - num_samples / 2
    few = torch.cos(torch.pi / _NUM_NODES * (torch.arange(_NUM_NODES) + 0.5)) * receiver.max_cfo
    waves, all_waves = (
        (-4j * torch.pi * instants * cfo).exp() for cfo in (few, cfo_grid(receiver, few.device))
    )
    side = (-2j * torch.pi / SAMPLES_PER_SYMBOL * instants).exp()
    factors = torch.cat([side * waves, side.conj() * waves], 1), torch.linalg.lstsq(waves, all_waves)[0]
    return tuple(factor.to(device, torch.complex64) for factor in factors)
