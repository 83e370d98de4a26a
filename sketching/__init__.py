"""Randomised low-rank approximation on any matrix `rangeformer.as_operator` can read."""

from sketching.distributions import Gaussian as Gaussian
from sketching.distributions import RangeFormerSketch as RangeFormerSketch
from sketching.distributions import SampledRowSpace as SampledRowSpace
from sketching.distributions import Sketch as Sketch
from sketching.distributions import SparseSign as SparseSign
from sketching.distributions import SubsampledTrig as SubsampledTrig
from sketching.low_rank import LowRank as LowRank
from sketching.randomized_svd import randomized_svd as randomized_svd
