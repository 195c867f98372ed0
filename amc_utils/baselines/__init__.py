"""Receivers that no network is: the genie-aided bound and the likelihood receiver, recorded as runs."""
