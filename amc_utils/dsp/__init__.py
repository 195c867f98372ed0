"""Signal processing of received frames: timing, carrier, spectrum."""
