"""LeNet-5 as a whole, on CPU and CUDA: forward pass, backward pass and step without autograd."""
