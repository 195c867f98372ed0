"""The residual network on raw samples, the reference that needs no picture."""

from __future__ import annotations

from torch import Tensor, nn

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
