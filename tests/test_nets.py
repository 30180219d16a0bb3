from __future__ import annotations

import pytest
import torch

from models import nets
from models.lenet import LeNet5
from models.linear import Linear

# Parameters by layer; C3 original: 6 (25*3+1) + 9 (25*4+1) + (25*6+1) = 1,516.
PARAMETERS = {"c1": 156, "c5": 48_120, "f6": 10_164, "output": 850}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("c3", "in_c3", "in_all"), [("original", 1_516, 60_806), ("modern", 2_416, 61_706)]
)
def test_parameters_by_layer(c3, in_c3, in_all):
    net = nets.LeNet5(c3)
    layers = {name: count(layer) for name, layer in net.named_children() if count(layer)}
    assert layers == {**PARAMETERS, "c3": in_c3}
    assert count(net) == count(LeNet5(c3=c3)) == in_all


def test_linear_classifier_has_785_parameters():
    assert count(Linear()) == 785


@pytest.mark.parametrize("c3", ["original", "modern"])
def test_lenet_maps_images_to_logits(c3):
    assert LeNet5(c3=c3)(torch.rand(3, 1, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize("c3", ["original", "modern"])
def test_backends_agree_on_the_whole_net(c3):
    reference = nets.LeNet5(c3, backend="reference")
    x = torch.rand(11, 1, 28, 28)
    for backend in ("composite", "cpu"):
        net = nets.LeNet5(c3, backend=backend)
        net.load_state_dict(reference.state_dict())
        torch.testing.assert_close(net(x), reference(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("z", "y", "right"), [(2.0, 1, 1), (-2.0, 1, 0), (-0.1, -1, 1), (0.0, -1, 1)]
)
def test_linear_prediction_is_right_where_zy_is_not_negative(z, y, right):
    predicted, true = Linear().predicted_and_true(torch.tensor([z]), torch.tensor([y]))
    assert (predicted == true).item() == right
    assert true.item() == (y + 1) // 2
