"""Receivers that are no networks: the genie-aided bound and the likelihood receiver."""
