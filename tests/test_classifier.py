from __future__ import annotations

import lightning
import numpy as np
import pytest
import torch
from helpers import StopAfter, assert_same_weights, fit, trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from torchmetrics.classification import MulticlassConfusionMatrix

from data import FourNineDataModule, MNISTDataModule
from models.lenet import LeNet5
from models.linear import Linear
from models.metrics import Confusion

pytestmark = pytest.mark.filterwarnings("ignore")


EXPERIMENTS = {
    "lenet5": (LeNet5, lambda root, k: MNISTDataModule(root, batch_size=9, block_size=k)),
    "linear": (Linear, lambda root, k: FourNineDataModule(root=root, iterations=50, block_size=k)),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("block_size", [7, 1000])
def test_weights_do_not_depend_on_the_block_size(name, block_size, tiny_root, tmp_path):
    module, data = EXPERIMENTS[name]
    one, first = fit(module, data(str(tiny_root), 1), tmp_path)
    many, second = fit(module, data(str(tiny_root), block_size), tmp_path)
    assert first.global_step == second.global_step > 20
    assert_same_weights(one.state_dict(), many.state_dict())


def test_block_step_is_plain_gradient_descent(tiny_root, tmp_path):
    data = MNISTDataModule(str(tiny_root), batch_size=50, block_size=2)
    trained, _ = fit(LeNet5, data, tmp_path, max_epochs=1)
    lightning.seed_everything(0, verbose=False)
    model = LeNet5()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for block in data.train_dataloader():
        for index in block.order.split(block.sizes.tolist()):
            images, labels = block.images[index], block.labels[index]
            loss = torch.nn.functional.cross_entropy(model(images[:, None] / 255), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], weight, msg=name)


class Listener(Callback):
    """Counts the backward passes and steps that Lightning tells it of."""

    def __init__(self):
        self.told = 0

    def on_before_backward(self, *_):
        self.told += 1

    def on_before_optimizer_step(self, *_):
        self.told += 1


@pytest.mark.slow
def test_hooks_are_called_where_somebody_listens_and_change_nothing(tiny_root, tmp_path):
    module, data = EXPERIMENTS["lenet5"]
    alone, first = fit(module, data(str(tiny_root), 5), tmp_path)
    listener = Listener()
    heard, second = fit(module, data(str(tiny_root), 5), tmp_path, callbacks=[listener])
    assert listener.told == 2 * second.global_step
    assert first.global_step == second.global_step
    # Unheard, the compiled gradient takes the place of autograd: the same up to rounding.
    for name, weight in alone.state_dict().items():
        torch.testing.assert_close(weight, heard.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_max_steps_is_met_to_the_iteration(tiny_root, tmp_path):
    data = MNISTDataModule(str(tiny_root), batch_size=9, block_size=4)
    _, run = fit(LeNet5, data, tmp_path, max_epochs=-1, max_steps=22)
    assert run.global_step == 22


def test_metrics_count_every_image_and_average_over_them(tiny_root, tmp_path):
    data = MNISTDataModule(str(tiny_root), eval_batch_size=9)
    lightning.seed_everything(0, verbose=False)
    model = LeNet5()
    (result,) = trainer(tmp_path).test(model, data, verbose=False)
    with torch.no_grad():
        logits = model(data.test_images[:, None] / 255)
    right = (logits.argmax(1) == data.test_labels).sum().item()
    assert result["test/total"] == 70
    assert result["test/correct"] == right
    assert result["test/accuracy"] == pytest.approx(right / 70)
    loss = torch.nn.functional.cross_entropy(logits, data.test_labels).item()
    assert result["test/loss"] == pytest.approx(loss, rel=1e-5)


def test_loader_of_another_kind_is_refused(tmp_path):
    loader = torch.utils.data.DataLoader(torch.rand(4, 1, 28, 28))
    with pytest.raises(MisconfigurationException, match="not from a DataLoader: use data"):
        trainer(tmp_path).fit(LeNet5(), loader)


def test_validation_runs_inside_the_training(tiny_root, tmp_path):
    data = MNISTDataModule(str(tiny_root), val_size=30, batch_size=10)
    _, run = fit(LeNet5, data, tmp_path)
    assert run.callback_metrics["val/total"] == 30


def test_checkpoint_loads_without_the_command_line(tiny_root, tmp_path):
    data = MNISTDataModule(str(tiny_root))
    lightning.seed_everything(0, verbose=False)
    model = LeNet5(c3="modern", lr=0.2)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, data)
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = LeNet5.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert loaded.hparams == model.hparams
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(loaded(x), model.cpu()(x))


@pytest.mark.parametrize(
    "iteration", [13, 15, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 16, 29, 30))]
)
def test_continued_run_ends_with_the_same_bits(iteration, tiny_root, tmp_path):
    def data():
        return MNISTDataModule(str(tiny_root), batch_size=9, block_size=4)

    whole, run = fit(LeNet5, data(), tmp_path)
    assert run.global_step == 30
    path = tmp_path / "stopped.ckpt"
    with pytest.raises(SystemExit):
        fit(LeNet5, data(), tmp_path, callbacks=[StopAfter(iteration, path)])
    model = LeNet5()
    continued = trainer(tmp_path)
    continued.fit(model, data(), ckpt_path=path, weights_only=True)
    assert continued.global_step == 30
    assert_same_weights(whole.state_dict(), model.state_dict())


def test_training_step_returns_the_loss_of_every_iteration(tiny_root, tmp_path):
    seen = []

    class Spy(lightning.Callback):
        def on_train_batch_end(self, trainer, module, outputs, *_):
            seen.append((outputs["losses"].numpy().copy(), outputs["images"]))

    data = MNISTDataModule(str(tiny_root), batch_size=9, block_size=4)
    fit(LeNet5, data, tmp_path, max_epochs=1, callbacks=[Spy()])
    assert [len(losses) for losses, _ in seen] == [4, 4, 4, 3]
    assert [images for _, images in seen] == [36, 36, 36, 22]
    assert np.isfinite(np.concatenate([losses for losses, _ in seen])).all()


def test_learning_rate_must_be_positive():
    with pytest.raises(ValueError, match="lr must be above 0, and finite, got 0"):
        LeNet5(lr=0)


def test_confusion_is_that_of_torchmetrics():
    ours, theirs = Confusion(7), MulticlassConfusionMatrix(7)
    for size in (100, 1, 0):
        predicted, true = torch.randint(0, 7, (2, size))
        ours.update(predicted, true)
        theirs.update(predicted, true)
        assert torch.equal(ours.compute(), theirs.compute())


def test_a_class_that_does_not_exist_is_not_counted_elsewhere():
    with pytest.raises(IndexError):
        Confusion(7).update(torch.tensor([8]), torch.tensor([0]))


def test_a_model_is_validated_and_then_trained(tiny_root, tmp_path):
    model, data = LeNet5(), MNISTDataModule(str(tiny_root), batch_size=20, val_size=30)
    for function in ("validate", "fit", "test", "validate", "fit"):
        getattr(trainer(tmp_path, max_epochs=1), function)(model, data)
