"""The fused block: partial convolution, bias, tanh, 2x2 average pool and tanh, as one operator."""
