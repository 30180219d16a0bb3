"""What does not hold as the document prints it, and the right value of each."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from project.reproduce import bottleneck, differences, windows
from project.reproduce.bottleneck import PRINTED_BOTTLENECK, PRINTED_DIRECT


def test_printed_difference_kernels_are_right_as_they_are_and_not_flipped():
    x = torch.randn(3, 1, 7, 6, dtype=torch.float64)
    kernels = differences.PRINTED.double()
    assert differences.printed_errors(x, kernels) == [0, 0]
    assert min(differences.printed_errors(x, kernels.flip(1, 2))) > 1


def test_direct_convolution_is_printed_without_a_factor_5():
    (counted,) = bottleneck.by_torch([nn.Conv2d(192, 32, 5, padding=2)])
    assert counted == 28 * 28 * 32 * 5 * 5 * 192 == 120_422_400
    assert 5 * PRINTED_DIRECT[0] == counted


def test_first_product_of_the_bottleneck_lacks_the_16_and_the_second_is_right():
    counted = bottleneck.by_torch([nn.Conv2d(192, 16, 1), nn.Conv2d(16, 32, 5, padding=2)])
    assert [16 * PRINTED_BOTTLENECK[0], PRINTED_BOTTLENECK[1]] == counted
    assert sum(counted) == 12_443_648
    # Without a 16 in the second product alone the total would be another.
    assert counted[0] + counted[1] // 16 == 3_035_648


def test_bottleneck_is_called_10_times_smaller_and_is_9_68_times():
    assert round(120_422_400 / 12_443_648, 2) == 9.68


@pytest.mark.parametrize(("size", "outputs"), [(4, 2), (12, 3), (28, 14)])
def test_windows_of_pooling_step_and_the_printed_ones_slide(size, outputs):
    x = torch.randn(size, size)
    pooled = F.max_pool2d(x[None], size // outputs)[0]
    right, printed = windows.stepping(size, outputs), windows.printed(size, outputs)
    assert torch.equal(windows.maxima(x, right), pooled)
    assert not torch.equal(windows.maxima(x, printed), pooled)
    assert torch.equal(windows.readers(size, right), torch.ones(size, size, dtype=torch.long))
    # The last row of the last window, of all that slide by one pixel.
    assert printed[-1].stop == outputs + size // outputs - 1 < size


def test_activation_of_a_window_is_no_number_without_the_max():
    window = torch.randn(2, 3)
    assert torch.tanh(window).shape != torch.tanh(window.max()).shape == ()
    assert torch.equal(torch.tanh(window).max(), torch.tanh(window.max()))
