"""Prints the greatest error of the Triton kernels' tanh, as a share of it: anywhere, and near 0."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from models.kernels.conv_pool.cuda_kernels import tanh

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BLOCK = 4096


@triton.jit
def apply(x_ptr, y_ptr, block: tl.constexpr):
    n = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(y_ptr + n, tanh(tl.load(x_ptr + n)))


def applied(x):
    y = torch.empty_like(x, device=DEVICE)
    apply[(len(x) // BLOCK,)](x.to(DEVICE), y, block=BLOCK)
    return y.cpu()


def main():
    sizes = torch.logspace(-30, 1.5, 4 * BLOCK)
    x = torch.cat([-sizes, sizes])
    expected = x.double().tanh()
    errors = ((applied(x).double() - expected) / expected).abs()
    special = applied(torch.tensor([0, torch.inf, -torch.inf, torch.nan]).repeat(BLOCK // 4))
    assert special[:3].tolist() == [0, 1, -1]
    assert special[3].isnan()
    print(errors.max().item(), errors[x.abs() < 0.6].max().item())


if __name__ == "__main__":
    main()
