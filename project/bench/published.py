"""The training loops as the source document's readers write them: the baseline of every ratio.

Plain torch, one iteration at a time, images through a DataLoader with ToTensor, the original C3 as
sixteen convolutions whose outputs are concatenated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import FourNineDataModule
from models.kernels.table import C3_TABLE
from models.nets import C3
from project.bench import loops


class SixteenConvolutions(nn.Module):
    """C3 by its table: a small convolution for every output map, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(len(inputs), 1, 5) for inputs in C3_TABLE)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 6, 14, 14) -> (B, 16, 10, 10)."""
        pairs = zip(self.maps, C3_TABLE, strict=True)
        return torch.cat([convolution(x[:, list(inputs)]) for convolution, inputs in pairs], dim=1)


def published_lenet5(c3: C3) -> nn.Module:
    """Returns LeNet-5 in stock layers."""
    squash_and_pool = (nn.Tanh(), nn.AvgPool2d(2), nn.Tanh())
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        *squash_and_pool,
        SixteenConvolutions() if c3 == "original" else nn.Conv2d(6, 16, 5),
        *squash_and_pool,
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.Tanh(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, 10),
    )


def lenet5_iterations(c3: C3, root: Path, device: torch.device) -> Iterator[float]:
    """Trains on batches of 100 at lr 0.1 without end; yields each iteration's loss."""
    net = published_lenet5(c3).to(device)
    return loops.iterations(net, loops.loaded_batches(root, device))


PUBLISHED_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logistic": lambda z, y: -F.logsigmoid(y * z).sum(),
    # With the square that the document's code lacks: what its readers mean to compare.
    "mse": lambda z, y: (
        (1 - y) / 2 * ((1 - torch.sigmoid(-z)) ** 2 + torch.sigmoid(z) ** 2)
        + (1 + y) / 2 * (torch.sigmoid(-z) ** 2 + (1 - torch.sigmoid(z)) ** 2)
    ).sum(),
}


def linear_iterations(loss_name: str, root: Path, device: torch.device) -> Iterator[float]:
    """Trains 4 against 9 with batch size 1 at lr 1e-4 without end; yields each loss."""
    data = FourNineDataModule(root=str(root))
    data.setup("fit")
    x = data.train_images.flatten(1).float().to(device)
    y = data.train_labels.float().to(device)
    net = nn.Linear(784, 1).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    published_loss = PUBLISHED_LOSSES[loss_name]
    while True:
        i = torch.randint(len(x), (1,))
        loss = published_loss(net(x[i]).squeeze(1), y[i])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        yield loss.item()
