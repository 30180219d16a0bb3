"""LeNet-5 on the ten digits."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor

from models import by_hand, graph, nets, progress
from models.classifier import Block, Classifier, Differentiator
from models.kernels import dispatch
from models.kernels.dispatch import Backend
from models.kernels.notice import notice_if_slow


class LeNet5(Classifier):
    """LeNet-5 for images in [0, 1], cross-entropy, gradient descent.

    Args:
        c3: Connections of C3: by Table I of LeCun et al. 1998 (original), or all of them (modern).
        lr: Learning rate.
        backend: Version of the convolutional layers; auto takes the fastest that can run.
    """

    def __init__(
        self, c3: nets.C3 = "original", lr: float = 0.1, backend: Backend = "auto"
    ) -> None:
        net = nets.LeNet5(c3, backend)
        super().__init__(net, classes=10, lr=lr)
        self.net: nets.LeNet5
        self._replay: graph.Replay | None = None
        self.save_hyperparameters()

    @property
    def backend(self) -> str:
        """The version that runs, for the record."""
        return self._version_on(self.net.c3.weight.device)

    def _version_on(self, device: torch.device) -> str:
        backend: str = self.hparams["backend"]
        if self._trainer is not None and "mixed" in str(self.trainer.precision):
            return "reference" if backend == "reference" else "composite"
        return dispatch.choose(backend, device, self.net.c3.weight.dtype)

    def setup(self, stage: str) -> None:
        """Compiles what is compiled, so that it counts as set-up."""
        # Where the model will be: Lightning has not moved it yet.
        device = self.trainer.strategy.root_device
        if self._version_on(device) not in ("cpu", "cuda"):
            return
        training = stage == "fit"
        compiled = training and self._without_autograd(watched=self._watched())
        with notice_if_slow("Compiling the network, once on this machine (about 30 s) ..."):
            dispatch.warm_up(device, gradient=training and not compiled)
            if compiled:
                self._rehearse()

    def _rehearse(self) -> None:
        """Compiles what `learn` will call, by calling it without an image."""
        gradient, none = by_hand.Gradient(self.net), torch.empty(0, dtype=torch.int64)
        if self._is_plain_descent():
            images = torch.empty(0, 28, 28, dtype=torch.uint8)
            gradient.descend(images, none, none, none.numpy(), none, none)
        else:
            gradient(torch.empty(0, 1, 28, 28), none, 1)
        self.zero_grad()

    def on_fit_start(self) -> None:
        """Records the iteration on a GPU; before the training starts, so that it is set-up."""
        self._replay = None
        size = getattr(getattr(self.trainer, "datamodule", None), "batch_size", None)
        if self.device.type == "cuda" and size and self._can_be_recorded():
            x = torch.zeros(size, 1, 28, 28, device=self.device)
            labels = torch.zeros(size, dtype=torch.int64, device=self.device)
            try:
                # Under autocast, if Lightning trains under it: its casts are recorded too.
                with self.trainer.precision_plugin.forward_context():
                    self._replay = graph.Replay(self._one_step(), x, labels)
            except RuntimeError as error:
                print(f"Without a CUDA graph, which is slower: {error}", file=sys.stderr)

    def _can_be_recorded(self) -> bool:
        """Whether an iteration is what torch does alone: no hooks, ranks, or scaled gradients."""
        plugin = self.trainer.precision_plugin
        return (
            self._is_plain_descent()
            and not self._is_hooked()
            and by_hand.is_unobserved(self.net)
            and type(self.trainer.strategy) is SingleDeviceStrategy
            and type(plugin) in (Precision, MixedPrecision)
            and plugin.precision in ("32-true", "bf16-mixed")
        )

    def _one_step(self) -> graph.Iteration:
        def losses(x: Tensor, labels: Tensor) -> Tensor:
            return self.losses(self.net(x), labels)

        return graph.Iteration(losses, list(self.net.parameters()))

    def learn(self, block: Block) -> Tensor:
        """The K iterations of a block, one after the other; returns their losses (K,)."""
        shares = 1 / torch.from_numpy(block.totals)
        if self._replay is not None:
            losses = self._replayed(block, shares, self._replay)
        elif self._is_plain_descent() and self._without_autograd(watched=self._watched()):
            rates = self.learning_rates(len(shares))
            losses = by_hand.Gradient(self.net).descend(
                block.images, block.labels, block.order, block.sizes, shares, rates
            )
        else:
            return super().learn(block)
        progress.count_iterations(self.trainer, len(losses))
        return losses

    def _replayed(self, block: Block, shares: Tensor, replay: graph.Replay) -> Tensor:
        """The same without waiting for the device in between."""
        alone = self._one_step()
        shares = shares.to(block.images.device, torch.float32)
        rates = self.learning_rates(len(shares)).to(shares)
        losses = torch.empty_like(shares)
        for k, index in enumerate(block.order.split_with_sizes(block.sizes.tolist())):
            inputs = (*self._batch(block, index), shares[k], rates[k])
            losses[k] = replay(*inputs) if len(index) == replay.size else alone(*inputs)
        return losses

    def _is_plain_descent(self) -> bool:
        own = ("inputs", "configure_optimizers")
        return all(getattr(type(self), name) is getattr(LeNet5, name) for name in own)

    def differentiator(self, *, watched: bool) -> Differentiator:
        """Without autograd, where that can do without."""
        if self._without_autograd(watched=watched):
            return by_hand.Gradient(self.net)
        return super().differentiator(watched=watched)

    def _without_autograd(self, *, watched: bool) -> bool:
        is_cross_entropy = type(self).losses is LeNet5.losses
        return is_cross_entropy and not watched and by_hand.applies(self.net)

    def inputs(self, images: Tensor) -> Tensor:
        """Pixels (B, 28, 28) uint8 -> (B, 1, 28, 28) in [0, 1]."""
        return images.unsqueeze(1).to(self.dtype) / 255

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of logits (B, 10) -> (B,)."""
        return F.cross_entropy(outputs, labels, reduction="none")

    def classes(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The largest logit, and the label itself."""
        return outputs.argmax(1), labels

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Softmax of logits (B, 10)."""
        return outputs.softmax(1)
