"""Adapter records, the registry that holds them, and the store of their weights."""

from .adapter import (
    RESERVED_NAMES,
    Adapter,
    AdapterState,
    Digest,
    Method,
    Name,
    check_name,
    check_not_base,
    serving_id,
)
from .adapter_files import AdapterFiles, Layer, inspect_adapter
from .cache import cache_folder
from .cell import Cell, FinishReason, Outcomes, packed_texts
from .cell_table import CellScore
from .demand_window import DemandWindow
from .errors import (
    BaseModelError,
    BusyError,
    ConflictError,
    DatabaseError,
    InputError,
    RefusalError,
    RegistryError,
    RunError,
    ServerError,
    SilentAdapterError,
    SourceError,
    SuiteError,
    TooManyError,
    TraitRouteError,
    UnknownNameError,
    WeightsError,
)
from .feedback import Feedback
from .intake import Arrival, Base, Intake
from .location import Location, Place
from .profile_table import Origin, ProfileVersion, StoredProfile
from .registry import Registry
from .sources import AllowedSources
from .weights import WeightStore

__all__ = [
    "RESERVED_NAMES",
    "Adapter",
    "AdapterFiles",
    "AdapterState",
    "AllowedSources",
    "Arrival",
    "Base",
    "BaseModelError",
    "BusyError",
    "Cell",
    "CellScore",
    "ConflictError",
    "DatabaseError",
    "DemandWindow",
    "Digest",
    "Feedback",
    "FinishReason",
    "InputError",
    "Intake",
    "Layer",
    "Location",
    "Method",
    "Name",
    "Origin",
    "Outcomes",
    "Place",
    "ProfileVersion",
    "RefusalError",
    "Registry",
    "RegistryError",
    "RunError",
    "ServerError",
    "SilentAdapterError",
    "SourceError",
    "StoredProfile",
    "SuiteError",
    "TooManyError",
    "TraitRouteError",
    "UnknownNameError",
    "WeightStore",
    "WeightsError",
    "cache_folder",
    "check_name",
    "check_not_base",
    "inspect_adapter",
    "packed_texts",
    "serving_id",
]
