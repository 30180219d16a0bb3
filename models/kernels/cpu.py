"""What the CPU computes: the fused block, alone and twice in a row, and LeNet-5 as a whole."""

from models.kernels.conv_pool.cpu import Block, backward, backward_two, forward, forward_two
from models.kernels.lenet5.cpu import LeNet5Gradient

__all__ = ["Block", "LeNet5Gradient", "backward", "backward_two", "forward", "forward_two"]
