"""Makes gnuradio_16qam.sigmf-meta and .sigmf-data; needs GNU Radio 3.10 and nothing of this project."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from gnuradio import blocks, channels, digital, filter, gr

SAMPLE_RATE, SYMBOL_RATE, ROLLOFF = 1_000_000, 100_000, 0.25
# Noise over the band of 8 samples a symbol is 8/10 of that over the band recorded.
SNR_DB_AT_8 = 16.0
CARRIER_HZ, NUM_SAMPLES, SKIPPED = 30.0, 40_960, 1_000


def main() -> None:
    """Write both files beside this one, or into the folder named."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    sps = SAMPLE_RATE // SYMBOL_RATE
    points = digital.constellation_16qam().points()
    symbols = np.random.default_rng(7).integers(0, 16, (NUM_SAMPLES + SKIPPED) // sps + 100)
    taps = filter.firdes.root_raised_cosine(sps, sps, 1.0, ROLLOFF, 32 * sps)
    power = np.mean(np.abs(points) ** 2) * np.sum(np.square(taps)) / sps
    noise = np.sqrt(power / 10 ** (SNR_DB_AT_8 / 10) * sps / 8)
    graph = gr.top_block()
    chain = (
        blocks.vector_source_b(symbols.astype(np.uint8).tolist()),
        digital.chunks_to_symbols_bc(points),
        filter.interp_fir_filter_ccf(sps, taps),
        channels.channel_model(float(noise), CARRIER_HZ / SAMPLE_RATE, 1.0, [1.0], 11),
        blocks.skiphead(gr.sizeof_gr_complex, SKIPPED),
        blocks.head(gr.sizeof_gr_complex, NUM_SAMPLES),
        sink := blocks.vector_sink_c(),
    )
    graph.connect(*chain)
    graph.run()
    iq = np.array(sink.data(), np.complex64)
    pairs = (iq.view(np.float32) * (20_000 / np.abs(iq.view(np.float32)).max())).round()
    data = pairs.astype("<i2").tobytes()
    (folder / "gnuradio_16qam.sigmf-data").write_bytes(data)
    told = {
        "core:datatype": "ci16_le",
        "core:sample_rate": SAMPLE_RATE,
        "core:version": "1.2.0",
        "core:sha512": hashlib.sha512(data).hexdigest(),
        "core:description": "16QAM, 100 kBd, root-raised cosine of roll-off 0.25, carrier at 30 Hz, "
        "SNR 16 dB per sample in the band of 8 samples a symbol",
        "core:recorder": f"GNU Radio {gr.version()}, its modulator and channel model; synthetic",
    }
    meta = {"global": told, "captures": [{"core:sample_start": 0}], "annotations": []}
    text = json.dumps(meta, indent=1) + "\n"
    (folder / "gnuradio_16qam.sigmf-meta").write_text(text, encoding="utf8")


if __name__ == "__main__":
    main()
