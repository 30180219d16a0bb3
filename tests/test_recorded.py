"""The iteration that is recorded on a GPU: its operators everywhere, the recording where one is."""

from __future__ import annotations

import weakref
from functools import partial

import pytest
import torch
from helpers import TUNED, Curve, StopAfter, assert_same_weights, fit, of_a_gpu, trainer
from lightning.pytorch import Callback

from data import MNISTDataModule
from models.learners import graph, recorded
from models.learners.iteration import Iteration, Memory, Piece
from models.lenet import LeNet5
from models.lenet1998 import LeNet1998

GPU = torch.cuda.is_available()

pytestmark = pytest.mark.usefixtures("torch_that_records")


COMPOSITE = {"backend": "composite"}
NETS = {
    "original": (LeNet5, COMPOSITE),
    "modern": (LeNet5, {"c3": "modern", **COMPOSITE}),
    "tuned": (LeNet5, TUNED | COMPOSITE),
    "1998": (LeNet1998, {}),
}
DEVICE = {"accelerator": "auto" if GPU else "cpu", "devices": 1}


def trained(make, root, folder, **options):
    """Model, losses and Trainer of two epochs of 130 images in mini-batches of 9, and one of 4."""
    curve = Curve()
    data = MNISTDataModule(str(root), batch_size=9, block_size=4)
    options = {"max_epochs": 2, **DEVICE, "callbacks": [curve, *options.pop("more", ())], **options}
    model, run = fit(make, data, folder, **options)
    return model, torch.cat(curve.losses).cpu(), run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", NETS)
def test_recorded_and_other_iterations_train_the_same_way(
    name, precision, tiny_root, tmp_path, recordings
):
    kind, settings = NETS[name]
    options = {"precision": precision}
    plain = partial(kind, **{k: v for k, v in settings.items() if k != "backend"})
    expected, losses, _ = trained(plain, tiny_root, tmp_path, **options)
    model, ours, run = trained(partial(of_a_gpu(kind), **settings), tiny_root, tmp_path, **options)
    assert run.global_step == 2 * 15
    assert (model.learner, model.why_not_faster) == ("recorded", "")
    # In bfloat16 two orders of the same sums are soon two trainings.
    tolerance = (
        {"rtol": 1e-4, "atol": 1e-5} if precision == "32-true" else {"rtol": 0.1, "atol": 0.1}
    )
    torch.testing.assert_close(ours, losses, **tolerance)
    for key, weight in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key].cpu(), weight.cpu(), **tolerance)
    if not GPU:
        # One launch to prove it, and one for each whole mini-batch.
        assert recordings == [1 + 2 * 14]


@pytest.mark.filterwarnings("ignore")
def test_a_continued_training_takes_the_velocities_of_its_checkpoint(
    tiny_root, tmp_path, recordings
):
    kind, settings = NETS["tuned"]
    make = partial(of_a_gpu(kind), **settings)
    whole, losses, _ = trained(make, tiny_root, tmp_path)
    path = tmp_path / "half.ckpt"
    with pytest.raises(SystemExit):
        trained(make, tiny_root, tmp_path, more=[StopAfter(8, path)])
    curve, model = Curve(), make()
    run = trainer(tmp_path, callbacks=[curve], **DEVICE)
    run.fit(model, MNISTDataModule(str(tiny_root), batch_size=9, block_size=4), ckpt_path=path)
    torch.testing.assert_close(torch.cat(curve.losses).cpu(), losses[8:])
    if not GPU:
        assert torch.equal(torch.cat(curve.losses), losses[8:])
        assert_same_weights(model.state_dict(), whole.state_dict())


ERRORS = [
    RuntimeError("operation not permitted when stream is capturing"),
    OSError("gcc"),
    type("CompilationError", (Exception,), {})("at 7:12: no such thing"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_cannot_be_recorded_is_told_once_and_trained_the_next_way(
    error, tiny_root, tmp_path, monkeypatch, capsys
):
    def record(function, device):
        function()
        raise error

    monkeypatch.setattr(graph, "record", record)
    kind, settings = NETS["tuned"]
    make = partial(of_a_gpu(kind), **settings)
    model, losses, _ = trained(make, tiny_root, tmp_path)
    why = f"{type(error).__name__}: {error}"
    assert (model.learner, model.why_not_faster) == ("eager", f"not recorded: {why}")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"Not using the recorded learner, so slower: {why}"
    _, expected, _ = trained(partial(LeNet5, **settings), tiny_root, tmp_path)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


class OwnMomentum(of_a_gpu(LeNet5)):
    """Has another update than `update` says, and the rates of `LeNet5`."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.5, weight_decay=0.01)

    def learning_rates(self, count):
        return super().learning_rates(count)


class Changes(Callback):
    """Gives the optimizer another update before the second epoch, or weights other memory."""

    def __init__(self, what):
        self.what = what

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1 and self.what == "update":
            trainer.optimizers[0].param_groups[0].update(momentum=0.8, weight_decay=0.02)
        if trainer.current_epoch == 1 and self.what == "memory":
            for weight in pl_module.parameters():
                weight.data = weight.data.clone()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changed", ["nothing", "update", "memory"])
@pytest.mark.parametrize("kind", [OwnMomentum, of_a_gpu(LeNet5)])
def test_a_step_is_what_the_optimizer_says(
    kind, changed, tiny_root, tmp_path, recordings, monkeypatch
):
    make = partial(kind, **COMPOSITE)
    model, losses, _ = trained(make, tiny_root, tmp_path, more=[Changes(changed)])
    assert (model.learner, model.why_not_faster) == ("recorded", "")
    if not GPU:
        assert len(recordings) == (1 if changed == "nothing" else 2)
    monkeypatch.setattr(graph, "obstacle", lambda: "it is not wanted")
    model, expected, _ = trained(make, tiny_root, tmp_path, more=[Changes(changed)])
    assert model.learner == "eager"
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


class AddsGroup(Callback):
    """Gives the optimizer a group more before the second epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            more = torch.nn.Parameter(torch.zeros(1))
            trainer.optimizers[0].add_param_group({"params": [more]})


@pytest.mark.filterwarnings("ignore")
def test_a_group_of_parameters_more_goes_to_autograd(tiny_root, tmp_path, recordings):
    make = partial(of_a_gpu(LeNet5), **COMPOSITE)
    model, losses, _ = trained(make, tiny_root, tmp_path, more=[AddsGroup()])
    assert model.learner == "eager"
    _, expected, _ = trained(partial(LeNet5, **COMPOSITE), tiny_root, tmp_path)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_second_recording_that_fails_is_told_and_the_training_goes_on(
    tiny_root, tmp_path, recordings, monkeypatch, capsys
):
    record = graph.record

    def only_once(function, device):
        if recorded_before:
            raise RuntimeError("no more")
        recorded_before.append(True)
        return record(function, device)

    recorded_before = []
    monkeypatch.setattr(graph, "record", only_once)
    make = partial(of_a_gpu(LeNet5), **COMPOSITE)
    model, losses, _ = trained(make, tiny_root, tmp_path, more=[Changes("memory")])
    assert (model.learner, model.why_not_faster) == ("eager", "not recorded: RuntimeError: no more")
    line = "Not using the recorded learner, so slower: RuntimeError: no more"
    assert capsys.readouterr().err.splitlines() == [line]
    _, expected, _ = trained(partial(LeNet5, **COMPOSITE), tiny_root, tmp_path)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_gpu_without_memory_for_a_recording_trains_the_next_way(
    tiny_root, tmp_path, monkeypatch, capsys
):
    def none_left(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(recorded, "Memory", none_left)
    make = partial(of_a_gpu(LeNet5), **COMPOSITE)
    model, losses, _ = trained(make, tiny_root, tmp_path, max_epochs=1)
    why = "OutOfMemoryError: CUDA out of memory"
    assert (model.learner, model.why_not_faster) == ("eager", f"not recorded: {why}")
    assert capsys.readouterr().err == f"Not using the recorded learner, so slower: {why}\n"
    assert losses.isfinite().all()


@pytest.mark.parametrize(("size", "count"), [(0, 128), (100, 128), (60_000, 4), (10**6, 1)])
def test_large_mini_batches_are_laid_out_a_few_at_a_time(size, count, monkeypatch):
    monkeypatch.setattr(recorded, "Memory", lambda model, device, *sizes: sizes)
    learner = object.__new__(recorded.Recorded)
    device = torch.device("cpu")
    learner._model, learner._size = None, size
    learner._run = recorded.Run(device, "32-true", 1, size, None, True)
    assert learner._memory() == (size, count)


@pytest.mark.filterwarnings("ignore")
def test_a_block_longer_than_what_is_laid_out_is_distorted_the_same_way(
    tiny_root, tmp_path, recordings, monkeypatch
):
    make = partial(of_a_gpu(LeNet5), **TUNED | COMPOSITE)
    _, expected, _ = trained(make, tiny_root, tmp_path)
    monkeypatch.setattr(recorded, "AT_ONCE", 3)
    model, losses, _ = trained(make, tiny_root, tmp_path)
    assert model.learner == "recorded"
    torch.testing.assert_close(losses, expected, rtol=0, atol=0)


def nothing(iteration):
    return lambda: None


def another_gradient(iteration):
    def take():
        iteration.differentiate()
        iteration._row.mul_(1.1)
        iteration.take_step()

    return take


def half_of_the_weights(iteration):
    def take():
        iteration.differentiate()
        iteration._gradients[0].zero_()
        iteration.take_step()

    return take


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrong", [nothing, another_gradient, half_of_the_weights])
def test_a_recording_with_other_steps_is_not_used(wrong, tiny_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(graph, "record", lambda function, device: wrong(function))
    make = partial(of_a_gpu(LeNet5), **COMPOSITE)
    model, losses, _ = trained(make, tiny_root, tmp_path, max_epochs=1)
    assert model.learner == "eager"
    assert "a recorded step is off" in capsys.readouterr().err
    _, expected, _ = trained(partial(LeNet5, **COMPOSITE), tiny_root, tmp_path, max_epochs=1)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


def test_step_is_that_of_torch():
    torch.manual_seed(0)
    model = LeNet5(momentum=0.9, nesterov=True, weight_decay=0.01, **COMPOSITE)
    other = LeNet5(momentum=0.9, nesterov=True, weight_decay=0.01, **COMPOSITE)
    other.load_state_dict(model.state_dict())
    images = torch.randint(0, 256, (5, 28, 28), dtype=torch.uint8)
    labels = torch.arange(5)
    memory = Memory(model, torch.device("cpu"), 5, 3)
    iteration = Iteration(model, memory, model.configure_optimizers(), None)
    order = torch.stack([torch.randperm(5) for _ in range(3)])
    rates = torch.tensor([0.1, 0.2, 0.05])
    memory.lay_out(images, labels, Piece(order, None, torch.full((3,), 0.2), rates))
    optimizer = other.configure_optimizers()
    for k in range(3):
        iteration()
        optimizer.param_groups[0]["lr"] = rates[k].item()
        optimizer.zero_grad()
        loss = other.losses(other(other.inputs(images[order[k]])), labels[order[k]]).mean()
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(memory.losses[k], loss.detach())
    iteration.hand_over()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(ours.grad, theirs.grad)


class Rows:
    """An all-reduce over two ranks that have seen the same."""

    def __init__(self, breaks):
        self.breaks = breaks
        self.inside = False

    def __call__(self, tensor):
        if self.inside and self.breaks:
            raise RuntimeError("NCCL cannot be captured")
        tensor.mul_(2)


@pytest.mark.parametrize("breaks", [False, True])
def test_ranks_are_joined_inside_of_the_recording_or_between_two(breaks, monkeypatch):
    """Two ranks with the same images take the steps of one."""
    join, device = Rows(breaks), torch.device("cpu")

    def record(function, device):
        join.inside = True
        try:
            function()
        finally:
            join.inside = False
        return function

    monkeypatch.setattr(graph, "record", record)
    model = LeNet5(**COMPOSITE)
    before = [weight.clone() for weight in model.parameters()]
    optimizer = model.configure_optimizers()
    memory = Memory(model, device, 4, 2)
    iteration = Iteration(model, memory, optimizer, join)
    run = recorded.Run(device, "32-true", 2, 8, optimizer, True, all_reduce=join)
    with iteration.undone():
        launch = recorded._recorded(iteration, run)
        assert (launch is iteration) == (not breaks)
        recorded._prove(model, iteration, launch, run)
    for weight, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(weight, old)


def test_old_torch_and_rocm_record_nothing(monkeypatch):
    assert graph.obstacle() is None
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert graph.obstacle() == "recording on ROCm has not been seen to work"
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch, "__version__", "2.10.0+cu128")
    why = "torch before 2.11 has not been seen to get over a recording that fails"
    assert graph.obstacle() == why


@pytest.mark.skipif(not GPU, reason="records on a GPU")
def test_a_recording_that_fails_leaves_the_stream_as_it_was():
    device = torch.device("cuda", torch.cuda.current_device())
    x = torch.ones(3, device=device)
    before = torch.cuda.current_stream()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            graph.record(lambda: (torch.rand(99, device=device) + x.sum()).sum().item(), device)
        assert torch.cuda.current_stream() == before
        # Torch before 2.12 went on to take memory and random numbers from the recording's.
        torch.rand(1000, 1000, device=device)
        torch.cuda.empty_cache()
    launch = graph.record(lambda: x.add_(1), device)
    launch()
    assert x.sum().item() == 3 * (1 + graph.WARM_UPS + 1)


def test_an_iteration_keeps_the_connections_that_its_recording_reads():
    """A net that went to the CPU and back may lie where it was, with connections elsewhere."""
    model = LeNet5()
    optimizer = model.configure_optimizers()
    memory = Memory(model, torch.device("cpu"), 1, 1)
    iteration = Iteration(model, memory, optimizer, None)
    connections = weakref.ref(model.net.c3.connections)
    model.net.c3.connections = model.net.c3.connections.clone()
    assert connections() is not None
    del iteration
    assert connections() is None
