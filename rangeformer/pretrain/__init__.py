"""Pretraining on structured matrices: `python -m rangeformer.pretrain --help`."""

from rangeformer.pretrain.config import PretrainConfig as PretrainConfig
from rangeformer.pretrain.loop import TrainingResult as TrainingResult
from rangeformer.pretrain.loop import pretrain as pretrain
