from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from project.reproduce import filters

sizes = st.integers(1, 9)


def images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@settings(deadline=None)
@given(sizes, sizes)
def test_differences_are_those_of_neighbours(height, width):
    x = images(2, 1, height + 1, width + 1)
    assert torch.equal(filters.row_difference()(x), x[..., 1:, :] - x[..., :-1, :])
    assert torch.equal(filters.column_difference()(x), x[..., 1:] - x[..., :-1])


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 4))
def test_mean_is_average_pooling(size, channels, rest):
    x = images(2, channels, 3 * size + rest % size, 2 * size)
    torch.testing.assert_close(filters.mean(size, channels)(x), F.avg_pool2d(x, size))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_identity_matrix_is_not_the_mean(size):
    x = images(2, 1, 3 * size, 2 * size)
    diagonal = filters.fixed(torch.eye(size).view(1, 1, size, size) / size**2, stride=size)
    assert (diagonal(x) - F.avg_pool2d(x, size)).abs().min() > 0.01
    # Even where all pixels agree it has k of the k^2 terms.
    torch.testing.assert_close(diagonal(torch.ones_like(x)).unique().item(), 1 / size)


def test_luma_weighs_the_colours():
    x = images(2, 3, 4, 5)
    red, green, blue = x.unbind(1)
    expected = 0.299 * red + 0.587 * green + 0.114 * blue
    torch.testing.assert_close(filters.luma()(x).squeeze(1), expected)
    torch.testing.assert_close(filters.luma()(torch.ones(1, 3, 1, 1)).item(), 1.0)


@pytest.mark.parametrize(
    "layer", [filters.row_difference(), filters.column_difference(), filters.mean(2, 3)]
)
def test_filters_are_not_trained(layer):
    assert not any(parameter.requires_grad for parameter in layer.parameters())
