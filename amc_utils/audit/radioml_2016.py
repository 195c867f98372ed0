"""What is measured, and what others found, of the dictionaries of RadioML 2016.10a and 2016.10b.

That signals are what their labels say is not checked: the measures for RadioML 2018.01A take 1,024
samples and its classes. Source of what is known: the generator that was published with the file,
generate_RML2016.10a.py of the repository radioML/dataset, and issues there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from amc_utils.signals import MODULATION_GROUPS

# Sums that differ from 1 by less than this were made 1, in 32-bit numbers.
_ROOM = 1e-3
_GENERATOR = "radioML/dataset"


def facts_of(
    samples: Tensor, scale: float, modulations: tuple[str, ...], labels: list[int]
) -> dict[str, Any]:
    """What frames, labels and names show, for the report.

    Args:
        samples: float32 [N, num_samples, 2], as read, of sound frames.
        scale: what they were multiplied by.
        modulations: names in the file.
        labels: SNR labels in the file, ascending.
    """
    magnitude = samples.square().sum(2).sqrt() / scale
    sums = {"magnitudes": magnitude.sum(1), "squares": magnitude.square().sum(1)}
    return {
        "scale": scale,
        "modulations": list(modulations),
        "labels": labels,
        "sum_of": {
            name: {"median": float(value.median()), "unit_share": float(_is_one(value).mean())}
            for name, value in sums.items()
            if len(value)
        },
    }


def _is_one(value: Tensor) -> Tensor:
    return ((value - 1).abs() < _ROOM).float()


def _class_names(report: dict[str, Any]) -> tuple[str, str]:
    names = set(report["radioml_2016"]["modulations"])
    for version in ("2016.10a", "2016.10b"):
        if names == set(MODULATION_GROUPS[version]):
            return "ok", f"the {len(names)} classes of RadioML {version}"
    missing = [name for name in MODULATION_GROUPS["2016.10a"] if name not in names]
    return "remark", f"of the classes of RadioML 2016.10a {', '.join(missing)} are missing"


def _snr_labels(report: dict[str, Any]) -> tuple[str, str]:
    labels = report["radioml_2016"]["labels"]
    complete = labels == list(range(-20, 19, 2))
    seen = f"{len(labels)} from {labels[0]} to {labels[-1]} dB"
    return "ok" if complete else "remark", seen if complete else f"{seen}, where 20 are published"


def _snr_meaning(_: dict[str, Any]) -> tuple[str, str]:
    return "remark", (
        f"not measured; the published generator takes 10^(-label/10), a variance, for the standard "
        f"deviation of the noise, so that labels are not the SNR, which changes by twice the label "
        f"({_GENERATOR}, issues 10 and 38)"
    )


def _normalisation(report: dict[str, Any]) -> tuple[str, str] | None:
    facts = report["radioml_2016"]
    if not facts["sum_of"]:
        return None
    read = f"frames are read times {facts['scale']:.4g}, at unit mean power over the file"
    for name, text in {
        "magnitudes": f"sum to 1, as the published generator does it ({_GENERATOR}, issue 38)",
        "squares": "sum to 1: unit energy",
    }.items():
        share = facts["sum_of"][name]["unit_share"]
        if share > 0.5:
            what = f"in {share:.0%} of frames the samples' {name} {text}; {read}"
            return "ok" if share > 0.99 else "remark", what
    sums = (f"{name} {values['median']:.3g}" for name, values in facts["sum_of"].items())
    return "remark", f"frames are not scaled one by one, medians of sums: {', '.join(sums)}; {read}"


def _single_sideband(report: dict[str, Any]) -> tuple[str, str] | None:
    if "AM-SSB" not in report["radioml_2016"]["modulations"]:
        return None
    return "remark", (
        f"not measured; its transmitter was found to lose the message, which leaves the noise of the "
        f"channel ({_GENERATOR}, issue 19)"
    )


def _not_checked(_: dict[str, Any]) -> tuple[str, str]:
    return "cannot tell", (
        "whether signals are what their labels say, their pulse, carrier, timing and symbol rate: "
        "these are measured on 1,024 samples of RadioML 2018.01A's classes"
    )


CHECKS: dict[str, tuple[str, Callable[[dict[str, Any]], tuple[str, str] | None]]] = {
    name: ("radioml_2016", check)
    for name, check in {
        "class names": _class_names,
        "SNR labels": _snr_labels,
        "meaning of SNR labels": _snr_meaning,
        "scale of frames": _normalisation,
        "AM-SSB": _single_sideband,
        "signals": _not_checked,
    }.items()
}
