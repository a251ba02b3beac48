"""Adapter records, the registry that holds them, and the store of their weights."""

from .adapter import (
    RESERVED_NAMES,
    Adapter,
    AdapterState,
    Digest,
    Method,
    Name,
    check_name,
    serving_id,
)
from .adapter_files import AdapterFiles, inspect_adapter
from .cache import cache_folder
from .cell import Cell, FinishReason, Outcomes, packed_texts
from .errors import (
    BaseModelError,
    InputError,
    RefusalError,
    RegistryError,
    RunError,
    ServerError,
    SilentAdapterError,
    SuiteError,
    TraitRouteError,
    WeightsError,
)
from .registry import CellScore, Registry, StoredProfile
from .weights import WeightStore

__all__ = [
    "RESERVED_NAMES",
    "Adapter",
    "AdapterFiles",
    "AdapterState",
    "BaseModelError",
    "Cell",
    "CellScore",
    "Digest",
    "FinishReason",
    "InputError",
    "Method",
    "Name",
    "Outcomes",
    "RefusalError",
    "Registry",
    "RegistryError",
    "RunError",
    "ServerError",
    "SilentAdapterError",
    "StoredProfile",
    "SuiteError",
    "TraitRouteError",
    "WeightStore",
    "WeightsError",
    "cache_folder",
    "check_name",
    "inspect_adapter",
    "packed_texts",
    "serving_id",
]
