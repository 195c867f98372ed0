"""How a run is carried out, beside what it computes: the notebooks' parameter `engine`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# Settings that move work in time or place, or help a run that cannot go on without them.
_HARMLESS = {"checkpoint_minutes", "samples_in", "skip_bad_steps", "tracker"}
# Parameters that say where a run reads and writes and what it is called.
_ABOUT = {"run_name", "resume_from", "output_root", "profile", "data_path", "engine"}


class Engine(BaseModel):
    """Settings of the training engine; what is left out keeps its default.

    Attributes:
        checkpoint_minutes: time between checkpoints inside an epoch; each epoch ends with one anyway.
        skip_bad_steps: leave out a step whose loss is not finite, and count it, instead of stopping.
        accumulate: parts that a batch is cut into, to save memory; batch_size stays what it says.
        compile: let torch.compile fuse the network's operations.
        fused: AdamW in a single kernel.
        sample_bits: bits of a stored sample; 16 halves the memory, at a rounding error of -66 dB.
        cache: keep the frames selected from a file, rounded to 16 bits, for the next start.
        samples_in: where samples are kept: "device", "host" memory, "disk", or "auto" for the first
            that has room.
        tracker: where each epoch's numbers go as well, see amc_utils.runtime.tracking.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    checkpoint_minutes: float = Field(default=10.0, gt=0)
    skip_bad_steps: bool = False
    accumulate: int = Field(default=1, ge=1)
    compile: bool = False
    fused: bool = False
    sample_bits: Literal[16, 32] = 32
    cache: bool = True
    samples_in: Literal["auto", "device", "host", "disk"] = "auto"
    tracker: Literal["none", "tensorboard", "wandb"] = "none"


def deciding(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's parameters, as plain values, those that its numbers depend on, with the engine's."""
    engine = Engine.model_validate(parameters.get("engine", {})).model_dump(exclude=_HARMLESS)
    own = {name: value for name, value in parameters.items() if name not in _ABOUT}
    return own | {f"engine.{name}": value for name, value in engine.items()}
