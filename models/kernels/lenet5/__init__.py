"""LeNet-5 as a whole on the CPU: there and back in one call, and the steps of gradient descent."""
