from __future__ import annotations

import numpy as np
import pytest

from callbacks.loss_log import LossFile

NONE = np.empty(0, np.float32)


def test_file_is_whole_after_every_block(tmp_path):
    path = tmp_path / "losses.npy"
    file = LossFile(path, NONE)
    assert np.load(path).shape == (0,)
    written = NONE
    for size in (1, 9, 100, 1000):
        block = np.random.default_rng(size).random(size, dtype=np.float32)
        file.append(block)
        written = np.concatenate([written, block])
        np.testing.assert_array_equal(np.load(path), written)
    file.close()


@pytest.mark.parametrize("keep", [0, 3, 10])
def test_continued_file_begins_with_what_the_checkpoint_knows(tmp_path, keep):
    path = tmp_path / "losses.npy"
    losses = np.arange(10, dtype=np.float32)
    file = LossFile(path, NONE)
    file.append(losses)
    file.close()
    file = LossFile(path, losses[:keep])
    file.append(np.float32([-1]))
    file.close()
    np.testing.assert_array_equal(np.load(path), [*losses[:keep], -1])
