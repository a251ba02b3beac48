"""Datasets → LoRAs → transfer matrix → trait vectors → routing profile."""

from .base_model import PACKAGED, BaseModelFolder, open_base_model
from .matrix import TransferMatrix
from .measure import measure
from .profile import Profile, profile
from .scoring import Judgement, judge
from .suite import Suite, Training, folder_suite, load_suite
from .task import Example, Task
from .training import TrainedAdapter, train_adapter
from .traits import TraitSpace

__all__ = [
    "PACKAGED",
    "BaseModelFolder",
    "Example",
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
    "train_adapter",
]
