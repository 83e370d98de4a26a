"""What the looped models are compared with: the paper's own RangeFormer and the steps of its ablation."""

from rangeformer.baselines.config import PaperConfig as PaperConfig
from rangeformer.baselines.paper import PaperRangeFormer as PaperRangeFormer
from rangeformer.baselines.scaled import ScaledPaperRangeFormer as ScaledPaperRangeFormer
