"""Randomised low-rank approximation on any matrix `rangeformer.as_operator` can read."""

from sketching.randomized_svd import LowRank as LowRank
from sketching.randomized_svd import randomized_svd as randomized_svd
