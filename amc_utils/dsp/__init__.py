"""Signal processing below the generator and the pictures: constellations, timing, carrier, spectrum."""
