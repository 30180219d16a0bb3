from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data import DatasetError
from data.blocks import BlockLoader, EpochOrder, InOrder


def loader(count=23, *, draws=None, seed=3, epoch=0, **options):
    """Images whose every pixel is their number, so that a block shows what was drawn."""
    index = torch.arange(count)
    images = index.to(torch.uint8).view(-1, 1, 1).expand(-1, 2, 2)
    order = EpochOrder(index, seed, draws=draws, epoch=epoch)
    return BlockLoader(images, index, order, **{"batch_size": 4, **options})


def drawn(blocks):
    return torch.cat([block.labels[block.order] for block in blocks]).tolist()


def batches(block):
    labels = block.labels[block.order]
    return [part.tolist() for part in labels.split_with_sizes(block.sizes.tolist())]


def test_epoch_visits_every_image_once():
    assert sorted(drawn(loader())) == list(range(23))


def test_images_and_labels_stay_together():
    for block in loader(block_size=3):
        assert torch.equal(block.images[block.order, 0, 0].long(), block.labels[block.order])


@pytest.mark.parametrize(("block_size", "length"), [(1, 6), (4, 2), (6, 1), (100, 1)])
def test_block_size_changes_nothing_but_the_grouping(block_size, length):
    one_by_one = [batch for block in loader() for batch in batches(block)]
    blocks = list(loader(block_size=block_size))
    assert len(blocks) == len(loader(block_size=block_size)) == length
    assert [batch for block in blocks for batch in batches(block)] == one_by_one


def test_draws_with_replacement():
    labels = drawn(loader(draws=1000))
    assert len(labels) == 1000
    assert set(labels) == set(range(23))


def test_order_depends_on_seed_and_epoch():
    orders = [drawn(loader(seed=s, epoch=e)) for s in (0, 1) for e in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert drawn(loader(seed=1, epoch=1)) == orders[3]


def test_every_epoch_starts_at_the_front():
    both = loader()
    first = next(iter(both))
    assert len(drawn(both)) == 23
    assert torch.equal(next(iter(both)).order, first.order)


@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    block_size=st.integers(1, 5),
    world_size=st.integers(1, 5),
)
def test_ranks_share_the_global_batches(count, batch_size, block_size, world_size):
    sizes = {"batch_size": batch_size, "block_size": block_size}
    alone = list(loader(count, **sizes))
    shares = [
        list(loader(count, rank=rank, world_size=world_size, **sizes)) for rank in range(world_size)
    ]
    for i, block in enumerate(alone):
        together = [batches(share[i]) for share in shares]
        joined = [
            [image for part in parts for image in part] for parts in zip(*together, strict=True)
        ]
        assert joined == batches(block)
        assert all((share[i].totals == block.totals).all() for share in shares)


@pytest.mark.parametrize("done", range(4))
def test_continues_where_the_checkpoint_stood(done):
    whole = list(loader(block_size=2))
    first = loader(block_size=2)
    iterator = iter(first)
    for _ in range(done):
        next(iterator)
    second = loader(block_size=2)
    second.load_state_dict(first.state_dict())
    rest = whole[done:] or whole  # after the last block comes the next epoch
    assert drawn(second) == drawn(rest)
    assert drawn(second) == drawn(whole), "only the first epoch is a partial one"


@pytest.mark.parametrize("limit", range(1, 7))
def test_iterations_left_cut_a_block_and_the_rest_of_it_comes_next(limit):
    whole = list(loader(block_size=4))
    left = limit
    first = loader(block_size=4, iterations_left=lambda: left)
    short = []
    for block in first:
        short.append(block)
        left -= len(block.sizes)
    assert drawn(short) == drawn(whole)[: limit * 4]
    assert len(short[0].sizes) == min(limit, 4)
    second = loader(block_size=4)
    second.load_state_dict(first.state_dict())
    rest = list(second)
    if limit < 6:
        assert drawn(short) + drawn(rest) == drawn(whole)
        assert len(rest[0].sizes) == (4 - limit if limit < 4 else 6 - limit), "blocks end as before"
    else:
        assert drawn(rest) == drawn(whole), "the next epoch"


@given(
    st.integers(1, 40), st.integers(1, 5), st.lists(st.integers(1, 5), min_size=1), st.integers(1)
)
def test_position_is_that_of_the_last_iteration_whatever_the_blocks(count, batch, sizes, seed):
    """Continued at every iteration, each time with another block size."""
    whole = [
        images for block in loader(count, batch_size=batch, seed=seed) for images in batches(block)
    ]
    seen, state, left = [], None, [1000]
    while len(seen) < len(whole):
        part = loader(
            count,
            batch_size=batch,
            block_size=sizes[len(seen) % len(sizes)],
            seed=seed,
            iterations_left=lambda: left[0],
        )
        if state is not None:
            part.load_state_dict(state)
        seen.append(batches(next(iter(part)))[0])
        left[0] -= 1
        state = part.state_dict()
        assert state["images_done"] == sum(map(len, seen))
    assert seen == whole


def test_position_counts_images_where_the_batch_size_is_another():
    first = loader(block_size=2, batch_size=4)
    next(iter(first))
    second = loader(block_size=3, batch_size=5)
    second.load_state_dict(first.state_dict())
    assert drawn(second) == drawn(loader())[8:]


def test_position_inside_an_epoch_of_another_length_is_refused():
    first = loader(23)
    next(iter(first))
    second = loader(22)
    with pytest.raises(DatasetError, match="4 images into an epoch of 23, and an epoch now has 22"):
        second.load_state_dict(first.state_dict())
    assert len(drawn(first)) == 23
    second.load_state_dict(first.state_dict())  # of its end there is nothing to refuse


def test_evaluation_order_is_that_of_the_file():
    images = torch.zeros(5, 2, 2, dtype=torch.uint8)
    blocks = BlockLoader(images, torch.arange(5), InOrder(torch.arange(5)), batch_size=2)
    assert drawn(blocks) == [0, 1, 2, 3, 4]
