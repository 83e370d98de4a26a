"""Sketches behind one interface.

Oblivious ones, the sampled-row rival, and the one that reads a pilot sample.
"""

from sketching.sketches.base import Sketch as Sketch
from sketching.sketches.oblivious import Gaussian as Gaussian
from sketching.sketches.oblivious import SparseSign as SparseSign
from sketching.sketches.oblivious import SubsampledTrig as SubsampledTrig
from sketching.sketches.rangeformer import RangeFormerSketch as RangeFormerSketch
from sketching.sketches.sampled_rows import SampledRowSpace as SampledRowSpace
