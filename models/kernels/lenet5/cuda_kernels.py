"""Triton kernels of LeNet-5 beside its fused blocks: inputs, dense layers, loss and gradients.

Sums are in float32, without tf32, and in a fixed order: no atomics, so the same bits every time.

Shapes: K mini-batches in memory, B images of one, C classes. The next mini-batch is the `k`-th; `k`
is read on the device, so that a CUDA graph takes another one at each replay.
"""

from __future__ import annotations

import triton
import triton.language as tl

from models.kernels.conv_pool.cuda_kernels import tanh

# Not specialized: otherwise each size of mini-batch would be compiled anew during a training.
COUNTS = ["batch", "classes"]


@triton.jit(do_not_specialize=COUNTS)
def pick(
    images_ptr,  # (K, B, 28, 28) uint8
    numbers_ptr,  # (K, B, NUMBERS) for the distortion, if there is one
    waves_ptr,  # (WAVES, 28)
    k_ptr,  # (1,)
    x_ptr,  # (B, 1, 28, 28)
    batch,
    unit,
    offset,
    rotation,  # radians; this and the next four are the limits of the distortion
    scale,
    shear,
    shift,
    elastic,
    NUMBERS: tl.constexpr,  # 0 without distortion
    OF_MAP: tl.constexpr,  # those of them that are for the affine map
    WAVES: tl.constexpr,
    SIZE: tl.constexpr,  # 28
    PIXELS: tl.constexpr,  # of an image, filled up to a power of two
):
    """One image as network input: v / unit + offset for its bytes v, distorted or not."""
    b = tl.program_id(0)
    place = tl.load(k_ptr) * batch + b
    image_ptr = images_ptr + place * SIZE * SIZE
    n = tl.arange(0, PIXELS)
    inside = n < SIZE * SIZE
    if NUMBERS > 0:
        at = numbers_ptr + place * NUMBERS
        x, y = _mapped(at, n, rotation, scale, shear, shift, SIZE)
        if NUMBERS > OF_MAP:
            across, down = _bends(at + OF_MAP, waves_ptr, n, inside, WAVES, SIZE)
            x += elastic * across
            y += elastic * down
        value = _at(image_ptr, x, y, inside, SIZE)
    else:
        value = tl.load(image_ptr + n, inside, 0).to(tl.float32)
    tl.store(x_ptr + b * SIZE * SIZE + n, value / unit + offset, inside)


@triton.jit
def _mapped(numbers_ptr, n, rotation, scale, shear, shift, SIZE: tl.constexpr):
    """The input column and row of output pixel n, as in `maps_of` of `models/distortion.py`."""
    angle = rotation * tl.load(numbers_ptr)
    cos = tl.cos(angle)
    sin = tl.sin(angle)
    height = 1.0 + scale * tl.load(numbers_ptr + 1)
    width = 1.0 + scale * tl.load(numbers_ptr + 2)
    lean = shear * tl.load(numbers_ptr + 3)
    middle = (SIZE - 1) / 2
    down = (n // SIZE).to(tl.float32) - middle
    across = (n % SIZE).to(tl.float32) - middle
    x = cos * width * across + (cos * lean - sin * height) * down
    y = sin * width * across + (sin * lean + cos * height) * down
    x += shift * tl.load(numbers_ptr + 4) + middle
    y += shift * tl.load(numbers_ptr + 5) + middle
    return x, y


@triton.jit
def _bends(numbers_ptr, waves_ptr, n, inside, WAVES: tl.constexpr, SIZE: tl.constexpr):
    """The displacement of pixel n in columns and rows, as in `bends_of` there, per unit elastic."""
    column_ptr, row_ptr = waves_ptr + n % SIZE, waves_ptr + n // SIZE
    across = tl.zeros_like(n).to(tl.float32)
    down = across
    for i in range(WAVES):
        sideways = tl.zeros_like(across)
        upright = sideways
        for j in range(WAVES):
            wave = tl.load(column_ptr + j * SIZE, inside, 0.0)
            at = numbers_ptr + i * WAVES + j
            sideways += wave * tl.load(at)
            upright += wave * tl.load(at + WAVES * WAVES)
        wave = tl.load(row_ptr + i * SIZE, inside, 0.0)
        across += wave * sideways
        down += wave * upright
    return across, down


@triton.jit
def _at(image_ptr, x, y, inside, SIZE: tl.constexpr):
    """An image at column x and row y, by bilinear interpolation with zeros around it."""
    left = tl.floor(x)
    top = tl.floor(y)
    column = left.to(tl.int32)
    row = top.to(tl.int32)
    above = _between(image_ptr, row, column, x - left, inside, SIZE)
    below = _between(image_ptr, row + 1, column, x - left, inside, SIZE)
    return above + (y - top) * (below - above)


@triton.jit
def _between(image_ptr, row, column, share, inside, SIZE: tl.constexpr):
    """Interpolates between two neighbours in a row; outside of the image they are 0."""
    valid = inside & (row >= 0) & (row < SIZE)
    at = image_ptr + row * SIZE + column
    a = tl.load(at, valid & (column >= 0) & (column < SIZE), 0).to(tl.float32)
    b = tl.load(at + 1, valid & (column >= -1) & (column < SIZE - 1), 0).to(tl.float32)
    return a + share * (b - a)


@triton.jit
def _factor(x, IS_ROUNDED: tl.constexpr):
    """A factor of a product, which is rounded to bfloat16 under autocast."""
    return x.to(tl.bfloat16).to(tl.float32) if IS_ROUNDED else x


@triton.jit
def _load_matrix(ptr, rows, row_count, columns, column_count, IS_ROUNDED: tl.constexpr):
    """Rows and columns of a matrix (row_count, column_count), 0 outside of it."""
    there = (rows < row_count)[:, None] & (columns < column_count)[None, :]
    values = tl.load(ptr + rows[:, None] * column_count + columns[None, :], there, 0.0)
    return _factor(values, IS_ROUNDED)


@triton.jit
def _sums_of_c5(
    x_ptr,
    weight_ptr,
    n,
    X: tl.constexpr,
    C5: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    IS_ROUNDED: tl.constexpr,
):
    """The outputs of C5 for one image, before bias and tanh."""
    sums = tl.zeros([WIDTH, COLUMNS], tl.float32)
    for start in range(0, X, COLUMNS):
        i = start + tl.arange(0, COLUMNS)
        x = _factor(tl.load(x_ptr + i, i < X, 0.0), IS_ROUNDED)
        sums += _load_matrix(weight_ptr, n, C5, i, X, IS_ROUNDED) * x[None, :]
    return tl.sum(sums, 1)


@triton.jit
def _cross_entropy(logits, is_right):
    """The cross-entropy of one image, and its gradient at the logits."""
    highest = tl.max(logits, 0)
    powers = tl.exp(logits - highest)
    total = tl.sum(powers, 0)
    right = tl.sum(tl.where(is_right, logits, 0.0), 0)
    return tl.log(total) + (highest - right), powers / total - is_right.to(tl.float32)


@triton.jit(do_not_specialize=COUNTS)
def head(
    x_ptr,  # (B, 400) S4's maps
    labels_ptr,  # (K, B) int64
    shares_ptr,  # (K,) weight of each image in the loss
    k_ptr,  # (1,)
    c5_weight_ptr,  # (120, 400)
    c5_bias_ptr,  # (120,)
    f6_weight_ptr,  # (84, 120)
    f6_bias_ptr,  # (84,)
    output_weight_ptr,  # (C, 84)
    output_bias_ptr,  # (C,)
    c5_ptr,  # (B, 120) outputs of C5
    f6_ptr,  # (B, 84) outputs of F6
    c5_grad_ptr,  # (B, 120) gradient at the pre-activations of C5
    f6_grad_ptr,  # (B, 84) the same of F6
    output_grad_ptr,  # (B, C) gradient at the logits
    x_grad_ptr,  # (B, 400)
    losses_ptr,  # (B,) losses times the weight of the image
    batch,
    classes,
    X: tl.constexpr,  # 400
    C5: tl.constexpr,  # 120
    F6: tl.constexpr,  # 84
    WIDTH: tl.constexpr,  # at least C5 and F6, a power of two
    CLASSES: tl.constexpr,  # at least C, a power of two
    COLUMNS: tl.constexpr,  # of C5's weights that are held at once
    IS_ROUNDED: tl.constexpr,
):
    """Forward and backward pass of one image through the dense layers and the cross-entropy."""
    b, k = tl.program_id(0), tl.load(k_ptr)
    n, c = tl.arange(0, WIDTH), tl.arange(0, CLASSES)
    sums = _sums_of_c5(x_ptr + b * X, c5_weight_ptr, n, X, C5, WIDTH, COLUMNS, IS_ROUNDED)
    c5 = tanh(sums + tl.load(c5_bias_ptr + n, n < C5, 0.0))
    weight = _load_matrix(f6_weight_ptr, n, F6, n, C5, IS_ROUNDED)
    products = weight * _factor(c5, IS_ROUNDED)[None, :]
    f6 = tanh(tl.sum(products, 1) + tl.load(f6_bias_ptr + n, n < F6, 0.0))
    output_weight = _load_matrix(output_weight_ptr, c, classes, n, F6, IS_ROUNDED)
    products = output_weight * _factor(f6, IS_ROUNDED)[None, :]
    logits = tl.sum(products, 1) + tl.load(output_bias_ptr + c, c < classes, 0.0)

    share = tl.load(shares_ptr + k)
    label = tl.load(labels_ptr + k * batch + b)
    loss, slope = _cross_entropy(tl.where(c < classes, logits, -float("inf")), c == label)
    tl.store(losses_ptr + b, loss * share)

    grad = slope * share
    tl.store(output_grad_ptr + b * classes + c, grad, c < classes)
    products = output_weight * _factor(grad, IS_ROUNDED)[:, None]
    f6_grad = tl.sum(products, 0) * (1.0 - f6 * f6)
    products = weight * _factor(f6_grad, IS_ROUNDED)[:, None]
    c5_grad = tl.sum(products, 0) * (1.0 - c5 * c5)
    factor = _factor(c5_grad, IS_ROUNDED)[:, None]
    for start in range(0, X, COLUMNS):
        i = start + tl.arange(0, COLUMNS)
        c5_weight = _load_matrix(c5_weight_ptr, n, C5, i, X, IS_ROUNDED)
        tl.store(x_grad_ptr + b * X + i, tl.sum(c5_weight * factor, 0), i < X)
    tl.store(c5_ptr + b * C5 + n, c5, n < C5)
    tl.store(c5_grad_ptr + b * C5 + n, c5_grad, n < C5)
    tl.store(f6_ptr + b * F6 + n, f6, n < F6)
    tl.store(f6_grad_ptr + b * F6 + n, f6_grad, n < F6)


@triton.jit
def _dense_gradient(
    tile, x_ptr, grad_ptr, dw_ptr, db_ptr, batch, outputs, inputs,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, IMAGES: tl.constexpr, IS_ROUNDED: tl.constexpr,
):  # fmt: skip
    """A tile of the gradient at the weights (outputs, inputs) of a layer, and at its biases."""
    across = tl.cdiv(inputs, COLUMNS)
    o = tile // across * ROWS + tl.arange(0, ROWS)
    i = tile % across * COLUMNS + tl.arange(0, COLUMNS)
    dw = tl.zeros([ROWS, COLUMNS], tl.float32)
    db = tl.zeros([ROWS], tl.float32)
    for start in range(0, batch, IMAGES):
        b = start + tl.arange(0, IMAGES)
        x = _load_matrix(x_ptr, b, batch, i, inputs, IS_ROUNDED)
        there = (o < outputs)[:, None] & (b < batch)[None, :]
        grad = tl.load(grad_ptr + b[None, :] * outputs + o[:, None], there, 0.0)
        dw += tl.dot(_factor(grad, IS_ROUNDED), x, input_precision="ieee")
        db += tl.sum(grad, 1)
    there = (o < outputs)[:, None] & (i < inputs)[None, :]
    tl.store(dw_ptr + o[:, None] * inputs + i[None, :], dw, there)
    tl.store(db_ptr + o, db, (o < outputs) & (tile % across == 0))


@triton.jit
def _sum_up(each_ptr, total_ptr, batch, IMAGES: tl.constexpr):
    total = tl.zeros([IMAGES], tl.float32)
    for start in range(0, batch, IMAGES):
        b = start + tl.arange(0, IMAGES)
        total += tl.load(each_ptr + b, b < batch, 0.0)
    tl.store(total_ptr, tl.sum(total, 0))


@triton.jit(do_not_specialize=COUNTS)
def dense_gradients(
    x_ptr,  # (B, 400); the next six are written by `head`
    c5_ptr,
    f6_ptr,
    c5_grad_ptr,
    f6_grad_ptr,
    output_grad_ptr,
    each_ptr,  # (B,)
    c5_dw_ptr,  # (120, 400)
    c5_db_ptr,  # (120,)
    f6_dw_ptr,  # (84, 120)
    f6_db_ptr,  # (84,)
    output_dw_ptr,  # (C, 84)
    output_db_ptr,  # (C,)
    losses_ptr,  # (K,) sums over the images
    k_ptr,  # (1,)
    batch,
    classes,
    X: tl.constexpr,
    C5: tl.constexpr,
    F6: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    IMAGES: tl.constexpr,  # in one step of a sum
    IS_ROUNDED: tl.constexpr,
):
    """A tile of the gradient at the weights of a dense layer: of C5, then of F6 and the output."""
    tile = tl.program_id(0)
    before_f6 = tl.cdiv(C5, ROWS) * tl.cdiv(X, COLUMNS)
    before_output = before_f6 + tl.cdiv(F6, ROWS) * tl.cdiv(C5, COLUMNS)
    # fmt: off
    if tile < before_f6:
        _dense_gradient(
            tile, x_ptr, c5_grad_ptr, c5_dw_ptr, c5_db_ptr, batch, C5, X,
            ROWS, COLUMNS, IMAGES, IS_ROUNDED,
        )
    elif tile < before_output:
        _dense_gradient(
            tile - before_f6, c5_ptr, f6_grad_ptr, f6_dw_ptr, f6_db_ptr, batch, F6, C5,
            ROWS, COLUMNS, IMAGES, IS_ROUNDED,
        )
    else:
        _dense_gradient(
            tile - before_output, f6_ptr, output_grad_ptr, output_dw_ptr, output_db_ptr, batch,
            classes, F6, ROWS, COLUMNS, IMAGES, IS_ROUNDED,
        )
    # fmt: on
    if tile == 0:
        _sum_up(each_ptr, losses_ptr + tl.load(k_ptr), batch, IMAGES)
