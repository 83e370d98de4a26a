"""Pretraining on structured matrices: `python -m rangeformer.pretrain --help`."""

from rangeformer.pretrain.config import RunConfig as RunConfig
from rangeformer.pretrain.plan import Plan as Plan
from rangeformer.pretrain.task import Task as Task
from rangeformer.pretrain.trainer import TrainingResult as TrainingResult
from rangeformer.pretrain.trainer import pretrain as pretrain
