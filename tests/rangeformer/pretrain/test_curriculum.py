"""Sizes grow with progress; numbers of loops are uniform between their ends."""

from collections import Counter

import pytest
import torch

from rangeformer.pretrain.curriculum import draw_between, draw_index, draw_size, sizes_at

SIZES = (512, 64, 128, 256)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [(0.0, (64,)), (0.2, (64, 128)), (0.34, (64, 128, 256)), (0.49, (64, 128, 256)), (0.5, (64, 128, 256, 512))],
)
def test_sizes_grow(progress, expected):
    assert sizes_at(SIZES, progress, full_at=0.5) == expected


def test_without_a_curriculum_all_sizes_from_the_start():
    assert sizes_at(SIZES, 0.0, full_at=0.0) == (64, 128, 256, 512)


def test_allowed_sizes_are_drawn_equally(generator):
    drawn = Counter(draw_size(SIZES, 0.4, full_at=0.5, generator=generator) for _ in range(3000))
    assert sorted(drawn) == [64, 128, 256]
    assert all(850 < count < 1150 for count in drawn.values())


def test_both_ends_are_drawn(generator):
    assert {draw_between((2, 5), generator) for _ in range(100)} == {2, 3, 4, 5}
    assert draw_between((3, 3), generator) == 3
    assert {draw_index(3, generator) for _ in range(100)} == {0, 1, 2}


def test_all_comes_from_the_generator():
    first, second = (
        [draw_size(SIZES, 1.0, full_at=0.5, generator=g) for _ in range(20)]
        for g in (torch.Generator().manual_seed(4), torch.Generator().manual_seed(4))
    )
    assert first == second
