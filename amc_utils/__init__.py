"""Tools for joint modulation and SNR classification from 1,024 complex baseband samples."""
