"""Datasets → LoRAs → transfer matrix → trait vectors → routing profile."""

from .base_model import PACKAGED, BaseModelFolder, open_base_model
from .matrix.matrix import TransferMatrix
from .matrix.measure import measure
from .profile import Profile, profile
from .tasks.scoring import Judgement, judge
from .tasks.suite import GivenAdapter, Suite, Training, folder_suite, load_suite, target_suite
from .tasks.task import Example, Task
from .training import TrainedAdapter, train_adapter
from .traits.space import TraitSpace

__all__ = [
    "PACKAGED",
    "BaseModelFolder",
    "Example",
    "GivenAdapter",
    "Judgement",
    "Profile",
    "Suite",
    "Task",
    "TrainedAdapter",
    "Training",
    "TraitSpace",
    "TransferMatrix",
    "folder_suite",
    "judge",
    "load_suite",
    "measure",
    "open_base_model",
    "profile",
    "target_suite",
    "train_adapter",
]
