"""Networks with two heads, one for the modulation and one for the SNR, on images or on samples."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from amc_utils.config import TrainingParameters
from amc_utils.images import input_shape
from amc_utils.runtime.plugins import refuse_taken

NUM_FEATURES = 128


class ResidualStack(nn.Module):
    """Pointwise convolution, two residual units of two convolutions each, and halving by maximum."""

    def __init__(self, num_inputs: int, num_filters: int) -> None:
        super().__init__()
        self.widen = nn.Conv1d(num_inputs, num_filters, 1)
        self.units = nn.ModuleList(_unit(num_filters) for _ in range(2))
        self.halve = nn.MaxPool1d(2)

    def forward(self, signal: Tensor) -> Tensor:
        """Float [B, num_inputs, N] to [B, num_filters, N / 2]."""
        signal = self.widen(signal)
        for unit in self.units:
            signal = nn.functional.relu(signal + unit(signal))
        return self.halve(signal)


class OSheaResNet(nn.Module):
    """Features of raw samples, float [B, 2, num_samples] (I, Q) to [B, 128].

    Six residual stacks of 32 filters and two dense layers with SELU. Source: O'Shea, Roy, Clancy,
    "Over-the-Air Deep Learning Based Radio Signal Classification", 2018; the batch normalisation after
    each convolution and the dropout before the heads are this project's.
    """

    def __init__(self, num_samples: int, num_filters: int = 32, num_stacks: int = 6) -> None:
        super().__init__()
        widths = [2] + [num_filters] * num_stacks
        self.stacks = nn.Sequential(*map(ResidualStack, widths[:-1], widths[1:]))
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear(num_filters * (num_samples >> num_stacks), NUM_FEATURES),
            nn.SELU(),
            nn.Linear(NUM_FEATURES, NUM_FEATURES),
            nn.SELU(),
        )

    def forward(self, iq_pairs: Tensor) -> Tensor:
        """See the class."""
        return self.dense(self.stacks(iq_pairs))


def _unit(num_filters: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(num_filters, num_filters, 3, padding=1, bias=False),
        nn.BatchNorm1d(num_filters),
        nn.ReLU(),
        nn.Conv1d(num_filters, num_filters, 3, padding=1, bias=False),
        nn.BatchNorm1d(num_filters),
    )


# Networks on samples, made from the number of samples; and users' own on images, from that of channels.
IQ_MODELS: dict[str, Callable[..., nn.Module]] = {"oshea_resnet": OSheaResNet}
IMAGE_MODELS: dict[str, Callable[..., nn.Module]] = {}
# Short names of the training log and its relatives; any other timm name works as it is.
ALIASES = {
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "swin_small": "swin_small_patch4_window7_224",
    "swin_base": "swin_base_patch4_window7_224",
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
}


_OWN_NAMES = frozenset({*IQ_MODELS, *ALIASES})


def register_model(
    name: str, *, reads: str = "images"
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Decorator that makes a function a network of that name; the two heads are added to it.

    The function is given the number of channels, or of samples where `reads` is "iq", and what
    network_options say; its network turns [B, channels, height, width] or [B, 2, samples] into features
    [B, width].
    """
    refuse_taken(name, _OWN_NAMES, "a network")
    if reads not in ("images", "iq"):
        raise ValueError(f"reads must be 'images' or 'iq', got {reads!r}")

    def keep(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        {"images": IMAGE_MODELS, "iq": IQ_MODELS}[reads][name] = make
        return make

    return keep


class Logits(NamedTuple):
    """Outputs of the two heads: float [B, num_modulations] and [B, num_snrs]."""

    modulation: Tensor
    snr: Tensor


class TwoHeadNetwork(nn.Module):
    """Shared backbone, dropout, one head a task.

    Attributes:
        input_shape: channels, height and width of an image, or 2 and the number of raw samples.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        input_shape: tuple[int, ...],
        width: int,
        num_modulations: int,
        num_snrs: int,
        dropout: float,
        snr_head: str = "linear",
    ) -> None:
        super().__init__()
        if snr_head not in ("linear", "bottleneck"):
            raise ValueError(f"snr_head must be 'linear' or 'bottleneck', got {snr_head!r}")
        self.register_load_state_dict_pre_hook(_take_former_names)
        self.input_shape = input_shape
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.modulation_head = nn.Linear(width, num_modulations)
        if snr_head == "linear":
            self.snr_head = nn.Linear(width, num_snrs)
        else:
            self.snr_head = nn.Sequential(
                nn.Linear(width, width // 4), nn.GELU(), nn.Linear(width // 4, num_snrs)
            )

    def forward(self, inputs: Tensor) -> Logits:
        """Logits of images, float [B, C, H, W], or raw samples, float [B, 2, num_samples]."""
        return self.heads(self.dropout(self.backbone(inputs)))

    def heads(self, features: Tensor) -> Logits:
        """Logits of the backbone's features, float [B, width]."""
        return Logits(self.modulation_head(features), self.snr_head(features))


def _take_former_names(module: nn.Module, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
    """Let stored weights from when the backbone was called trunk be loaded."""
    for name in [name for name in state if name.startswith(f"{prefix}trunk.")]:
        state[f"{prefix}backbone.{name.removeprefix(f'{prefix}trunk.')}"] = state.pop(name)


def build_model(
    name: str,
    *,
    input_shape: tuple[int, ...],
    num_modulations: int,
    num_snrs: int,
    dropout: float,
    pretrained: bool | str = False,
    snr_head: str = "linear",
    **timm_options: int | float | str | bool,
) -> TwoHeadNetwork:
    """Network of any timm architecture, or a registered one, for images; or one for samples.

    Args:
        name: a timm model name, one of ALIASES, or a name of IQ_MODELS or IMAGE_MODELS.
        input_shape: channels, height and width of the images, or 2 and the number of samples.
        num_modulations: outputs of the modulation head.
        num_snrs: outputs of the SNR head.
        dropout: probability before the heads, in training only.
        pretrained: start from timm's ImageNet weights, which needs a connection or a filled cache; or
            from those of a file that amc export wrote, whose heads are taken where they fit.
        snr_head: "linear" or "bottleneck" (two layers through a quarter of the width).
        timm_options: handed to timm, for instance patch_size and window_size.

    Raises:
        ValueError: unknown network, an image size it cannot take, an option it does not know, or an
            exported file of another network.
        FileNotFoundError: pretrained weights that cannot be had.
    """
    if (name in IQ_MODELS) != (len(input_shape) == 2):
        raise ValueError(
            f"channels ['iq'] and a network on samples ({', '.join(IQ_MODELS)}) belong together, got "
            f"{name!r} and an input of shape {input_shape}"
        )
    if name in IQ_MODELS:
        backbone = _own_backbone(IQ_MODELS[name], name, input_shape[1], timm_options)
    elif name in IMAGE_MODELS:
        backbone = _own_backbone(IMAGE_MODELS[name], name, input_shape[0], timm_options)
    else:
        backbone = _timm_backbone(name, input_shape, pretrained is True, timm_options)
    network = TwoHeadNetwork(
        backbone,
        input_shape=input_shape,
        width=_feature_width(name, backbone, input_shape),
        num_modulations=num_modulations,
        num_snrs=num_snrs,
        dropout=dropout,
        snr_head=snr_head,
    )
    return _with_exported(network, Path(pretrained)) if isinstance(pretrained, str) else network


def _with_exported(network: TwoHeadNetwork, path: Path) -> TwoHeadNetwork:
    """The network with the weights of an exported one, but for heads of other classes."""
    if not path.is_file():
        raise FileNotFoundError(f"pretrained must be true, false or an exported model, got {path}")
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} must be a model that amc export wrote: {error}") from error
    weights = {n.removeprefix("network."): w for n, w in stored.items() if n.startswith("network.")}
    own = network.state_dict()
    fit = {name: w for name, w in weights.items() if name in own and w.shape == own[name].shape}
    missing = [name for name in own if name not in fit and name.startswith("backbone.")]
    if missing:
        raise ValueError(
            f"{path} must hold the same network for the same images, it lacks {missing[0]} of shape "
            f"{tuple(own[missing[0]].shape)}"
        )
    network.load_state_dict(fit, strict=False)
    return network


def count_parameters(network: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def count_flops(network: TwoHeadNetwork) -> int:
    """Floating-point operations of one forward pass of one image; a multiply-add counts as two.

    As torch's FlopCounterMode counts them, which does not know all layers: it leaves an LSTM's out.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *network.input_shape, device=device))
    network.train(was_training)
    return counter.get_total_flops()


def count_activation_bytes(network: TwoHeadNetwork) -> int:
    """Bytes that the forward pass keeps for the backward pass, for each image of a batch.

    Parameters, and copies of them in another precision, are the same for any batch and do not count.
    Two batches pass through the network, which should be a fresh one: normalisation takes note of them.
    """
    few, more = (_kept_bytes(network, size) for size in (2, 3))
    return more - few


def training_bytes(network: TwoHeadNetwork, num_images: int) -> int:
    """Memory that training on so many images at once takes, in float32; see count_activation_bytes."""
    # Weights, gradients and two moments.
    return 16 * count_parameters(network) + num_images * count_activation_bytes(network)


def _kept_bytes(network: TwoHeadNetwork, batch_size: int) -> int:
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    images = torch.zeros(batch_size, *network.input_shape, device=next(network.parameters()).device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(images)
    # Until here all that is kept is alive, so that no address is that of two.
    del logits
    return sum(kept.values())


def _own_backbone(make: Callable[..., nn.Module], name: str, size: int, options: dict) -> nn.Module:
    try:
        return make(size, **options)
    except TypeError as error:
        raise ValueError(f"network_options must suit {name}, got {options}: {error}") from None


def _timm_backbone(
    name: str, input_shape: tuple[int, ...], pretrained: bool, options: dict
) -> nn.Module:
    timm_name = ALIASES.get(name, name)
    if not timm.is_model(timm_name):
        known = [*ALIASES, *IMAGE_MODELS, *timm.list_models()]
        close = ", ".join(difflib.get_close_matches(name, known, n=4) or ALIASES)
        raise ValueError(
            f"network must be a timm model, an alias of one, or one that a plugin registers, got "
            f"{name!r}; try {close}"
        )
    # A network that a user registered has no such description.
    described = timm.models.get_pretrained_cfg(timm_name)
    if described and described.fixed_input_size:
        options = options | {"img_size": input_shape[1]}
    backbone = _create_backbone(timm_name, input_shape[0], pretrained, options)
    _check_image_size(name, backbone, input_shape[1])
    return backbone


def _create_backbone(timm_name: str, num_channels: int, pretrained: bool, options: dict) -> nn.Module:
    try:
        return timm.create_model(
            timm_name, in_chans=num_channels, num_classes=0, pretrained=pretrained, **options
        )
    except TypeError as error:
        raise ValueError(
            f"network_options must suit timm's {timm_name}, got {options}: {error}"
        ) from None
    except OSError as error:
        if not pretrained:
            raise
        raise FileNotFoundError(
            f"pretrained weights of {timm_name} are neither cached nor downloadable; connect to the "
            f"network once, or set pretrained to false"
        ) from error


def _check_image_size(name: str, backbone: nn.Module, image_size: int) -> None:
    """Transformers cut the image into patches and Swin halves the map thrice; nothing may be lost."""
    patch_size = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    if patch_size is None:
        return
    patch_size = patch_size if isinstance(patch_size, Sequence) else (patch_size,)
    reductions = [info["reduction"] for info in getattr(backbone, "feature_info", [])]
    step = max([patch_size[0], *reductions])
    if image_size % step:
        raise ValueError(
            f"image_size must be a multiple of {step} for {name} with this patch size, got {image_size}"
        )


@torch.no_grad()
def _feature_width(name: str, backbone: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Pooled features of one input; measured, since networks disagree on where they state it."""
    backbone.eval()
    try:
        features = backbone(torch.zeros(1, *input_shape))
    except (RuntimeError, AssertionError) as error:
        why = str(error) or type(error).__name__
        what = "samples" if len(input_shape) == 2 else f"images of {input_shape[1]} px"
        raise ValueError(f"{name} cannot take {what}: {why}") from None
    if not isinstance(features, Tensor) or features.ndim != 2:
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"{name} must give features of shape [batch, width], got {got}")
    backbone.train()
    return features.shape[1]


def convert_sync_batchnorm(network: nn.Module) -> nn.Module:
    """The same network, its batch normalisation over the batches of all processes; for GPUs only.

    torch's own conversion would drop the activations that timm keeps inside its normalisation.
    """
    return timm.layers.convert_sync_batchnorm(network)


def untrained_network(config: TrainingParameters, **options: bool) -> TwoHeadNetwork:
    """Network that the parameters describe, its weights drawn by their seed; options of build_model."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return build_model(
            config.network,
            input_shape=input_shape(config.channels, config.image_size, config.num_samples),
            num_modulations=len(config.modulation_names),
            num_snrs=len(config.snr_labels),
            dropout=config.dropout,
            **config.network_options | options,
        )
