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
from .cache import cache_folder
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
from .importing import Base, Importer, ImportResult
from .registry.cells import Cell, CellScore, FinishReason, Outcomes, packed_texts
from .registry.feedback import Feedback
from .registry.location import Location, Place
from .registry.profiles import Origin, ProfileVersion, StoredProfile
from .registry.registry import Registry
from .registry.summary import (
    Correction,
    Estimates,
    FittedTraits,
    NewRow,
    PairedOutcomes,
    ProfileSummary,
    Stability,
    TraitName,
)
from .registry.traffic import DemandWindow
from .weights.adapter_files import AdapterFiles, Layer, inspect_adapter
from .weights.sources import AllowedSources
from .weights.store import WeightStore

__all__ = [
    "RESERVED_NAMES",
    "Adapter",
    "AdapterFiles",
    "AdapterState",
    "AllowedSources",
    "Base",
    "BaseModelError",
    "BusyError",
    "Cell",
    "CellScore",
    "ConflictError",
    "Correction",
    "DatabaseError",
    "DemandWindow",
    "Digest",
    "Estimates",
    "Feedback",
    "FinishReason",
    "FittedTraits",
    "ImportResult",
    "Importer",
    "InputError",
    "Layer",
    "Location",
    "Method",
    "Name",
    "NewRow",
    "Origin",
    "Outcomes",
    "PairedOutcomes",
    "Place",
    "ProfileSummary",
    "ProfileVersion",
    "RefusalError",
    "Registry",
    "RegistryError",
    "RunError",
    "ServerError",
    "SilentAdapterError",
    "SourceError",
    "Stability",
    "StoredProfile",
    "SuiteError",
    "TooManyError",
    "TraitName",
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
