"""Forward and backward pass of one group of images through LeNet-5, which stays in the cache.

Shapes as in `memory.py`.
"""

from __future__ import annotations

from models.kernels.compiled import compiled
from models.kernels.conv_pool.frame import frame_images, out_of_lanes
from models.kernels.conv_pool.memory import PerMap, part
from models.kernels.conv_pool.pair import backward_both, forward_both
from models.kernels.conv_pool.subsampling import coefficients_back
from models.kernels.lanes import LANES
from models.kernels.lenet5.dense import dense, dense_input_gradient, through_tanh
from models.kernels.lenet5.distort import pick_images
from models.kernels.lenet5.head import loss_of_group


@compiled()
def there(batch, first, blocks, net, group):
    """The forward pass of the images from batch.order[first] on -> each layer's values up to F6."""
    c1, images = blocks.first.shape, len(batch.order) - first
    pixels = c1.maps * c1.height * c1.width
    pick_images(batch, first, pixels, group.frame, group.bends, group.picked)
    frame_images(group.picked, 0, images, c1, blocks.scratch.framed)
    s2 = PerMap(net.c1_bias, net.s2, net.s2_bias)
    s4 = PerMap(net.c3_bias, net.s4, net.s4_bias)
    forward_both(blocks, s2, s4, group.state, group.s4)
    dense(group.s4, net.c5, net.c5_bias, True, group.c5)
    dense(group.c5, net.f6, net.f6_bias, True, group.f6)


@compiled()
def back(batch, first, blocks, net, head, group, rows, sums, losses):
    """Losses and backward pass; gradients at dense weights are left to the sums over rows."""
    g, groups = first // LANES, -(-len(batch.order) // LANES)
    d_output = part(rows.d_output, g, groups)
    d_f6, d_c5 = part(rows.d_f6, g, groups), part(rows.d_c5, g, groups)
    loss_of_group(head, batch, first, net, group, d_output, losses)
    through_tanh(group.f6_gradient, group.f6, d_f6)
    dense_input_gradient(d_f6, net.f6, group.c5_gradient)
    through_tanh(group.c5_gradient, group.c5, d_c5)
    dense_input_gradient(d_c5, net.c5, group.s4_gradient)
    images = len(batch.order) - first
    _into_rows(group.s4, images, first, rows.s4)
    _into_rows(group.c5, images, first, rows.c5)
    _into_rows(group.f6, images, first, rows.f6)
    backward_both(group.s4_gradient, blocks, group.state, sums)
    if len(blocks.scratch.fours):
        coefficients_back(group.s4_gradient, group.s4, blocks, group.state, sums)


@compiled()
def _into_rows(x, images, first, rows):
    """A layer's values x (width, L) -> the rows of these images in rows (B, width)."""
    width = len(x) // LANES
    out_of_lanes(x, images, width, rows, first * width, width)
