"""What can be trained, by the name under which a config file asks for it."""

from rangeformer.pretrain.task import Task
from rangeformer.pretrain.tasks.features import FeaturesTask
from rangeformer.pretrain.tasks.galerkin import GalerkinTask
from rangeformer.pretrain.tasks.lawt import LawtTask
from rangeformer.pretrain.tasks.paper import PaperTask
from rangeformer.pretrain.tasks.pure import PureTask

TASKS: dict[str, type[Task]] = {
    "features": FeaturesTask,
    "lawt": LawtTask,
    "galerkin": GalerkinTask,
    "paper": PaperTask,
    "pure": PureTask,
}
