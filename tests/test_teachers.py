"""Learning from the answers of trained nets, in place of the labels."""

from __future__ import annotations

import copy
import shutil
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers import TUNED, Curve, assert_same_weights, compiled_gradient, fit, relative_error
from lightning.fabric.utilities.exceptions import MisconfigurationException

from data import MNISTDataModule
from models.learners import graph
from models.learners.recorded import Recorded
from models.lenet import LeNet5
from models.linear import Linear
from models.teachers import Teachers, TeachersError

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("torch_that_records"),
]

SAME = {"standardize": False, "classes": 10}


def save(path, make, iterations=1):
    """A checkpoint of fresh weights, as of a training of so many iterations."""
    torch.manual_seed(iterations)
    model = make()
    content = {
        "global_step": iterations,
        "hyper_parameters": dict(model.hparams),
        "state_dict": model.state_dict(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return model


@pytest.fixture
def committee(tmp_path):
    """The pattern of two teachers' folders, and the two."""
    folder = tmp_path / "runs"
    return str(folder / "teacher-*"), [
        save(folder / "teacher-1/version_0/checkpoints/a.ckpt", LeNet5, 1),
        save(folder / "teacher-2/version_0/checkpoints/a.ckpt", partial(LeNet5, "modern"), 2),
    ]


def mean_of(nets, x):
    with torch.no_grad():
        return sum(model.net(x).softmax(1) for model in nets) / len(nets)


def data(root, **options):
    return MNISTDataModule(str(root), **{"batch_size": 50, "block_size": 2, **options})


def test_the_last_checkpoint_of_each_folder_gives_one_vote(tmp_path, committee):
    pattern, nets = committee
    folder = tmp_path / "runs/teacher-1/version_0/checkpoints"
    nets[0] = save(folder / "Z.ckpt", LeNet5, 9)
    save(folder / "z.ckpt", LeNet5, 8)
    x = torch.rand(5, 1, 28, 28)
    answers = Teachers(pattern, SAME)(x)
    torch.testing.assert_close(answers, mean_of(nets, x))
    file = Teachers(str(folder / "z.ckpt"), SAME)
    assert not torch.isclose(file(x), answers).all()


class Anywhere(Recorded):
    devices = ("cpu",)


class OfAGpu(LeNet5):
    learners = (Anywhere,)


COMPOSITE = {"backend": "composite"}
SETTINGS = {name: value for name, value in TUNED.items() if name not in ("c3", "standardize")}
LEARNERS = {
    "compiled-gradient": (LeNet5, {}),
    "eager": (LeNet5, COMPOSITE),
    "recorded": (OfAGpu, COMPOSITE),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_learnt_are_the_answers_to_the_distorted_images(
    name, committee, tiny_root, tmp_path, monkeypatch
):
    pattern, nets = committee
    kind, more = LEARNERS[name]
    monkeypatch.setattr(graph, "record", lambda function, device: function)

    class WrittenOut(LeNet5):
        def targets(self, x, labels):
            return mean_of(nets, x)

    curves, trained = [], []
    for make in (partial(kind, **more, teachers=pattern), partial(WrittenOut, **COMPOSITE)):
        curves.append(Curve())
        found = fit(
            partial(make, **SETTINGS),
            data(tiny_root),
            tmp_path,
            max_epochs=1,
            callbacks=curves[-1:],
        )
        trained.append(found[0])
    assert trained[0].learner == name
    torch.testing.assert_close(*(torch.cat(c.losses) for c in curves), rtol=1e-3, atol=1e-5)
    for key, weight in trained[0].state_dict().items():
        torch.testing.assert_close(weight, trained[1].state_dict()[key], rtol=1e-3, atol=1e-5)


def test_without_a_teacher_s_folder_a_pupil_still_answers(committee, tiny_root, tmp_path):
    pattern, _ = committee
    pupil, run = fit(partial(LeNet5, teachers=pattern), data(tiny_root), tmp_path, max_epochs=1)
    assert pupil.why_not_faster == "not compiled: there are teachers"
    run.save_checkpoint(tmp_path / "pupil.ckpt")
    shutil.rmtree(tmp_path / "runs")
    read = LeNet5.load_from_checkpoint(tmp_path / "pupil.ckpt", weights_only=True)
    assert_same_weights(read.state_dict(), pupil.state_dict())
    assert len(read.state_dict()) == len(LeNet5().state_dict())
    with pytest.raises(MisconfigurationException, match="no checkpoint at teachers"):
        fit(partial(LeNet5, teachers=pattern), data(tiny_root), tmp_path)


def test_a_weight_s_gradient_comes_from_the_probabilities(committee):
    x, targets = torch.rand(20, 1, 28, 28), torch.randn(20, 10).softmax(1)
    net = LeNet5().net
    losses = compiled_gradient(net)(x, targets, 0.05)
    found = [weight.grad.clone() for weight in net.parameters()]
    exact = copy.deepcopy(net).double()
    expected = F.cross_entropy(exact(x.double()), targets.double(), reduction="none")
    assert relative_error(losses, expected.detach()) < 1e-5
    slopes = torch.autograd.grad(0.05 * expected.sum(), list(exact.parameters()))
    for one, other in zip(found, slopes, strict=True):
        assert relative_error(one, other) < 5e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(LeNet5, standardize=True), "has standardize True, and its pupil False"),
        (partial(LeNet5, classes=7), "has classes 7, and its pupil 10"),
        (Linear, "is no LeNet-5"),
        (None, "is no checkpoint, or damaged"),
    ],
)
def test_who_is_no_teacher_is_refused(make, message, tmp_path):
    path = tmp_path / "teacher.ckpt"
    if make is None:
        path.write_text("weights")
    else:
        save(path, make)
    with pytest.raises(TeachersError, match=message):
        Teachers(str(path), SAME)
