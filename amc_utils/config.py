"""Parameters of notebooks and commands: names, types, ranges, files; one sentence for what is wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from amc_utils.dsp.receiver_settings import ReceiverSettings, receiver_settings
from amc_utils.losses import MODULATION_LOSSES, SNR_LOSSES
from amc_utils.runtime.parameters import Parameters, existing_file
from amc_utils.runtime.paths import NAME_PATTERN
from amc_utils.runtime.plugins import load_plugins
from amc_utils.signals import (
    NUM_SAMPLES,
    SAMPLES_PER_SYMBOL,
    Channel,
    channel_from,
    expand_modulations,
    snr_grid,
)

# Settings that move work in time or place, or help a run that cannot go on without them.
_RUNTIME_ONLY = {"checkpoint_minutes", "samples_in", "skip_bad_steps", "tracker"}
# Parameters that say where a run reads and writes and what it is called.
_IDENTITY = {"plugins", "run_name", "resume_from", "output_root", "profile", "data_path", "engine"}
# From so many images, or minutes, on compiling for a GPU is taken to pay; an estimate.
_WORTH_COMPILING, _MINUTES_WORTH_COMPILING = 5_000_000, 10


class Engine(BaseModel):
    """Settings of the training engine; what is left out keeps its default.

    Attributes:
        checkpoint_minutes: time between checkpoints inside an epoch; each epoch ends with one anyway.
        skip_bad_steps: leave out a step whose loss is not finite, and count it, instead of stopping.
        accumulate: parts that a batch is cut into, to save memory; batch_size stays what it says.
        minutes: train for about so long, instead of num_epochs; 0 for num_epochs.
        compile: let torch.compile fuse the network's operations; "auto" where that pays, see on_device.
        fused: AdamW in a single kernel; "auto" on a GPU.
        sample_bits: bits of a stored sample; 16 halves the memory, at a rounding error of -66 dB; of a
            file's samples without cache.
        cache: keep the frames selected from a file, rounded to 16 bits, for the next start.
        samples_in: where samples are kept: "device", "host" memory, "disk", or "auto" for the first
            that has room.
        tracker: where each epoch's numbers go as well, see amc_utils.runtime.tracking.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    checkpoint_minutes: float = Field(default=10.0, gt=0)
    skip_bad_steps: bool = False
    accumulate: int = Field(default=1, ge=1)
    minutes: float = Field(default=0.0, ge=0)
    compile: bool | Literal["auto"] = "auto"
    fused: bool | Literal["auto"] = "auto"
    sample_bits: Literal[16, 32] = 32
    cache: bool = True
    samples_in: Literal["auto", "device", "host", "disk"] = "auto"
    tracker: Literal["none", "tensorboard", "wandb"] = "none"


def result_affecting(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's parameters, as plain values, those that its numbers depend on, with the engine's."""
    engine = Engine.model_validate(parameters.get("engine", {})).model_dump(exclude=_RUNTIME_ONLY)
    # Runs from before these could be "auto" had neither unless they said so.
    engine |= {name: False for name in ("compile", "fused") if engine[name] == "auto"}
    own = {name: value for name, value in parameters.items() if name not in _IDENTITY}
    return own | {f"engine.{name}": value for name, value in engine.items()}


NotNegative = Field(ge=0, allow_inf_nan=False)
Positive = Field(gt=0, allow_inf_nan=False)
Count = Field(ge=1)


def _known_channel(value: dict[str, Any]) -> dict[str, Any]:
    channel_from(value)
    return value


ChannelSettings = Annotated[
    dict[str, float | int | bool | str | list[float]], AfterValidator(_known_channel)
]


class DataParameters(Parameters):
    """Which frames: those of a RadioML file, or of the generator when `data_path` is empty.

    Attributes:
        profile: label of the scale, kept with the run.
        data_path: RadioML file (HDF5, or 2016.10's pickle) or $RADIOML_2018_01A; empty draws synthetic
            frames.
        label_order: corrected, or shipped if the file is labelled by the wrong list.
        modulations: names, or the groups digital (17), all (24), 2016.10a (11) and 2016.10b (10).
        snr_range_db: first, last, step of the SNR labels.
        num_frames_per_cell: frames of each modulation and SNR label.
        num_samples: of a frame; of a file's longer ones the first are taken.
        channel: of synthetic frames: preset (radioml_2018, table_1, open), and changes to it.
        unit_power: scale each frame to unit power; else a record keeps its scale.
        channels: images stacked for the network; stack for the ordered ones, iq for samples.
        image_size: pixels per side.
        seed: of frames, split, weights and order.
    """

    profile: str = "laptop"
    data_path: str = ""
    label_order: Literal["corrected", "shipped"] = "corrected"
    modulations: list[str] = Field(
        ["4ASK", "BPSK", "QPSK", "8PSK", "OQPSK", "16APSK", "16QAM", "64QAM"]
    )
    snr_range_db: list[int] = Field([-8, 20, 4])
    num_frames_per_cell: int = Field(100, ge=1)
    num_samples: int = Field(NUM_SAMPLES, ge=128, multiple_of=SAMPLES_PER_SYMBOL)
    channel: ChannelSettings = Field({})
    unit_power: bool = False
    channels: list[str] = Field(["counts_8_bit"])
    image_size: int = Field(32, ge=8, le=1024)
    seed: int = Field(2018, ge=0, lt=2**63)

    @field_validator("data_path")
    @classmethod
    def _file_exists(cls, value: str) -> str:
        path = os.path.expanduser(os.path.expandvars(value))
        if path.startswith("$"):
            raise ValueError(f"data_path must name a file, and the environment has no variable {path}")
        hint = 'README "On your RadioML file" says where to get it; empty draws synthetic frames'
        return existing_file(path, "RadioML file", hint)

    @field_validator("modulations")
    @classmethod
    def _modulations_known(cls, value: list[str]) -> list[str]:
        expand_modulations(value)
        return value

    @field_validator("snr_range_db")
    @classmethod
    def _snr_on_grid(cls, value: list[int]) -> list[int]:
        snr_grid(value)
        return value

    @property
    def synthetic_channel(self) -> Channel:
        """Channel of synthetic frames: a preset, but for what `channel` sets."""
        return channel_from(self.channel)

    @property
    def receiver(self) -> ReceiverSettings:
        """What images of symbols know about the channel; of pulse and timing what the preset says."""
        return receiver_settings(self.channel)

    @property
    def image_options(self) -> dict[str, Any]:
        """What a network is given, as images.network_input takes it."""
        return {
            "channels": self.channels,
            "image_size": self.image_size,
            "receiver": self.receiver,
            "unit_power": self.unit_power,
        }

    @property
    def modulation_names(self) -> tuple[str, ...]:
        """Modulations in RadioML order, groups expanded."""
        return expand_modulations(self.modulations)

    @property
    def snr_labels(self) -> tuple[int, ...]:
        """SNR labels, ascending."""
        return snr_grid(self.snr_range_db)


class TrainingParameters(DataParameters):
    """Everything that a training run depends on.

    Attributes:
        plugins: Python files that register networks, images and losses of your own.
        trust_file: train on a file although its audit fails.
        network: timm name, or one of this project.
        network_options: pretrained, snr_head, and what timm takes.
        dropout: probability before the heads.
        task_weighting: how the losses of both tasks are put together.
        task_weights: of modulation and SNR in a sum.
        log_variance_rate: of learned weights, times learning_rate; they have far to go in a short run.
        modulation_loss: cross_entropy, or one that a plugin registers.
        snr_loss: cross_entropy, cumulative, earth_mover or regression.
        snr_loss_weights: of that loss, and of the expected distance in steps.
        learning_rate: step size of AdamW.
        weight_decay: decoupled.
        schedule: of the learning rate.
        gradient_clip: largest gradient norm; 0 for none.
        batch_size: frames per step.
        num_epochs: passes over the training frames.
        shuffle: new order every epoch.
        fresh_frames: new synthetic training frames every epoch.
        precision: of the forward pass; "auto" is bf16-mixed on a GPU and 32-true elsewhere.
        engine: how the run is carried out, for instance compile, accumulate, sample_bits.
        run_name: empty for a new adjective-noun-number.
        resume_from: checkpoint file; empty starts afresh.
    """

    plugins: list[str] = Field([])
    trust_file: bool = False
    network: str = "resnet18"
    network_options: dict[str, bool | int | float | str] = Field({})
    dropout: float = Field(0.3, ge=0, lt=1)
    task_weighting: Literal["log_variance", "equal", "sum"] = "log_variance"
    task_weights: list[Annotated[float, Positive]] = Field([1.0, 1.0], min_length=2, max_length=2)
    log_variance_rate: Annotated[float, Positive] = 1.0
    modulation_loss: str = "cross_entropy"
    snr_loss: str = "cross_entropy"
    snr_loss_weights: list[Annotated[float, NotNegative]] = Field(
        [1.0, 0.1], min_length=2, max_length=2
    )
    learning_rate: Annotated[float, Positive] = 1e-4
    weight_decay: Annotated[float, NotNegative] = 1e-5
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    gradient_clip: Annotated[float, NotNegative] = 0.0
    batch_size: int = Field(32, ge=2)
    num_epochs: int = Field(4, ge=1)
    shuffle: bool = True
    fresh_frames: bool = False
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    engine: Engine = Engine()
    run_name: str = Field("", pattern=rf"^({NAME_PATTERN})?$")
    resume_from: str = ""

    @property
    def num_joint_classes(self) -> int:
        """Modulations times SNR labels."""
        return len(self.modulation_names) * len(self.snr_labels)

    @property
    def automatic(self) -> set[str]:
        """Parameters that follow from the device, named as result_affecting names them."""
        engine = {f"engine.{name}" for name, value in self.engine if value == "auto"}
        epochs = {"num_epochs"} if self.engine.minutes else set()
        return engine | epochs | ({"precision"} if self.precision == "auto" else set())

    def on_device(
        self, kind: str, begun: Mapping[str, Any] | None = None, *, can_compile: bool = True
    ) -> Self:
        """The same with a value for each "auto".

        Args:
            kind: of the device that it shall suit, "cuda" or "cpu".
            begun: parameters of a run that goes on, whose values stay as they are.
            can_compile: whether torch.compile has what it needs.
        """
        on_gpu, begun = kind == "cuda", begun or {}
        precision = self.precision
        if precision == "auto":
            precision = begun.get("precision", "bf16-mixed" if on_gpu else "32-true")
        images = self.num_joint_classes * self.num_frames_per_cell * self.num_epochs
        choices = {
            "compile": on_gpu
            and can_compile
            and (images >= _WORTH_COMPILING or self.engine.minutes >= _MINUTES_WORTH_COMPILING),
            # A fused step unscales gradients itself, too late for clipping them.
            "fused": on_gpu and (precision != "16-mixed" or not self.gradient_clip),
        }
        choices |= {n: v for n, v in begun.get("engine", {}).items() if n in choices and v != "auto"}
        chosen = {name: v for name, v in choices.items() if getattr(self.engine, name) == "auto"}
        engine = self.engine.model_copy(update=chosen)
        return self.model_copy(update={"precision": precision, "engine": engine})

    _plugins_run = field_validator("plugins")(load_plugins)

    @field_validator("modulation_loss", "snr_loss")
    @classmethod
    def _loss_known(cls, value: str, info: ValidationInfo) -> str:
        known = {"modulation_loss": MODULATION_LOSSES, "snr_loss": SNR_LOSSES}[info.field_name]
        if value not in known:
            raise ValueError(f"{info.field_name} must be one of {', '.join(known)}, got {value!r}")
        return value

    @field_validator("snr_loss_weights")
    @classmethod
    def _some_weight(cls, value: list[float]) -> list[float]:
        if max(value) <= 0:
            raise ValueError(f"snr_loss_weights must have one weight above 0, got {value}")
        return value

    @model_validator(mode="after")
    def _task_weights_are_used(self) -> Self:
        if self.task_weighting != "sum" and self.task_weights != [1.0, 1.0]:
            raise ValueError(
                f"task_weights must stay [1.0, 1.0] with task_weighting {self.task_weighting!r}, which "
                f"makes no use of them, got {self.task_weights}; they weigh the terms of 'sum'"
            )
        if self.task_weighting != "log_variance" and self.log_variance_rate != 1.0:
            raise ValueError(
                f"log_variance_rate must stay 1.0 with task_weighting {self.task_weighting!r}, which "
                f"learns no log-variances, got {self.log_variance_rate}"
            )
        return self

    @model_validator(mode="after")
    def _fresh_frames_can_be_drawn(self) -> Self:
        if self.fresh_frames and self.data_path:
            raise ValueError(
                f"fresh_frames must be false with a file, which has no new ones; got data_path "
                f"{self.data_path!r}"
            )
        return self

    @model_validator(mode="after")
    def _time_is_that_of_a_whole_run(self) -> Self:
        if self.engine.minutes and self.resume_from:
            raise ValueError(
                f"engine.minutes must be 0 with resume_from, which has epochs behind it, got "
                f"{self.engine.minutes}; set num_epochs"
            )
        return self

    @field_validator("resume_from")
    @classmethod
    def _checkpoint_exists(cls, value: str) -> str:
        return existing_file(value, "checkpoint", "leave resume_from empty to start afresh")
