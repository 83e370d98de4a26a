"""Randomised low-rank approximation on any matrix `rangeformer.as_operator` can read."""

from rangeformer.deprecation import renamed_attributes as _renamed_attributes
from sketching.algorithms.block_krylov_svd import block_krylov_svd as block_krylov_svd
from sketching.algorithms.interpolative import CUR as CUR
from sketching.algorithms.interpolative import Interpolative as Interpolative
from sketching.algorithms.interpolative import cur as cur
from sketching.algorithms.interpolative import interpolative as interpolative
from sketching.algorithms.nystrom import nystrom as nystrom
from sketching.algorithms.nystrom import pivoted_nystrom as pivoted_nystrom
from sketching.algorithms.one_view_svd import OneViewSVD as OneViewSVD
from sketching.algorithms.one_view_svd import one_view_svd as one_view_svd
from sketching.algorithms.randomized_eigh import randomized_eigh as randomized_eigh
from sketching.algorithms.randomized_svd import randomized_svd as randomized_svd
from sketching.algorithms.range_finder import range_finder as range_finder
from sketching.algorithms.trace import DiagonalEstimate as DiagonalEstimate
from sketching.algorithms.trace import TraceEstimate as TraceEstimate
from sketching.algorithms.trace import estimate_diagonal as estimate_diagonal
from sketching.algorithms.trace import estimate_trace as estimate_trace
from sketching.algorithms.xtrace import xtrace as xtrace
from sketching.learning.finetuning import finetune as finetune
from sketching.results import Eigen as Eigen
from sketching.results import LowRank as LowRank
from sketching.results import Range as Range
from sketching.sketches import Gaussian as Gaussian
from sketching.sketches import RangeFormerSketch as RangeFormerSketch
from sketching.sketches import SampledRowSpace as SampledRowSpace
from sketching.sketches import Sketch as Sketch
from sketching.sketches import SparseSign as SparseSign
from sketching.sketches import SubsampledTrig as SubsampledTrig
from sketching.sketches.random_features import RandomFeatures as RandomFeatures
from sketching.sketches.random_features import RandomFeaturesConfig as RandomFeaturesConfig

__getattr__ = _renamed_attributes(__name__, {"Lift": RandomFeatures, "LiftConfig": RandomFeaturesConfig})
