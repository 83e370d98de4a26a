"""Laws of sketches behind one interface: oblivious ones, the sampled-row rival, and the one that looks first."""

from sketching.distributions.base import Sketch as Sketch
from sketching.distributions.oblivious import Gaussian as Gaussian
from sketching.distributions.oblivious import SparseSign as SparseSign
from sketching.distributions.oblivious import SubsampledTrig as SubsampledTrig
from sketching.distributions.rangeformer import RangeFormerSketch as RangeFormerSketch
from sketching.distributions.sampled_rows import SampledRowSpace as SampledRowSpace
