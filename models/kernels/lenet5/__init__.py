"""LeNet-5 as a whole, on CPU and CUDA: forward and backward pass without autograd, and steps."""
