"""A trained network in use: exported, calibrated, on recordings and frames."""
