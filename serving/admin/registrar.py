"""Changes to the registry that a server follows, and their pydantic models. Blocking: call it in threads.

The server itself only reads the registry. A field that is not listed here is refused.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...adapters import (
    Adapter,
    AdapterState,
    AllowedSources,
    ConflictError,
    Importer,
    Location,
    Name,
    Registry,
    RegistryError,
)
from ..http.errors import UnavailableError
from ..http.models import Page, PageOf

_AUTHOR = "the admin API"

Text = Annotated[str, Field(min_length=1, max_length=2000)]
Licence = Annotated[str, Field(min_length=1, max_length=64)]
Tags = Annotated[tuple[Name, ...], Field(max_length=64)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewWeights(_Strict):
    """Weights, and where they come from; see `docs/adapters.md`."""

    uri: Text = Field(description="Where the weights are: a path or URI that the operator allows.")
    licence: Licence | None = Field(default=None, description="The licence, where the source states none.")
    same_base: bool = Field(
        default=False,
        description="Whether the base model named in the adapter's configuration is the registry's under another name.",
    )


class NewAdapter(NewWeights):
    """An adapter that does not exist yet."""

    name: Name = Field(description="The name by which it will be requested.")
    tags: Tags = Field(default=(), description="Tags, by which requests can limit which adapters may answer.")
    canary: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = Field(
        default=None, description="The share of the conversations it would win that it gets once it is measured."
    )
    replaces: Name | None = Field(default=None, description="With a share: the adapter in whose place it answers.")

    @model_validator(mode="after")
    def _check_share(self) -> Self:
        if self.replaces is not None and self.canary is None:
            raise ValueError('"replaces" says whom a canary is compared with: give "canary" too, as in 0.01')
        return self

    source_task: Name | None = Field(default=None, description="The task whose data it was trained on.")


class AdapterChange(_Strict):
    """What to change; at least one of `state`, `tags` and `canary`."""

    state: Literal["enabled", "disabled"] | None = Field(
        default=None, description="A disabled adapter is not served until it is enabled again."
    )
    note: Text | None = Field(default=None, description="Why the adapter is disabled.")
    tags: Tags | None = Field(default=None, description="The tags in place of the present ones.")
    canary: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] | None = Field(
        default=None, description="The share of the conversations it would win that it gets: 0 is none, 1 all."
    )

    @model_validator(mode="after")
    def _check_something_changes(self) -> Self:
        if self.state is None and self.tags is None and self.canary is None:
            raise ValueError('nothing would change: give "state", "tags" or "canary"')
        if self.note is not None and self.state != "disabled":
            raise ValueError('"note" says why an adapter is disabled: give it with that state')
        return self


class AdapterRecord(Adapter):
    """An adapter as the registry holds it."""

    object: Literal["adapter"] = "adapter"
    tag: str = Field(description="Stands for this version of the record: give it as If-Match with a change.")
    replacement: Adapter | None = Field(
        description="New weights that are being measured before they take the name over."
    )

    @property
    def entity_tag(self) -> str:
        """The ETag of this version of the record."""
        return f'"{self.tag}"'


class AdapterList(PageOf):
    """The adapters, by name, a page at a time."""

    object: Literal["list"] = "list"
    data: tuple[AdapterRecord, ...]


class AdapterDeleted(BaseModel):
    """An adapter was removed from the registry."""

    object: Literal["adapter.deleted"] = "adapter.deleted"
    deleted: Literal[True] = True
    name: str


class Registrar:
    """Changes the registry at `where()`, opened anew for each change: changes are rare, and it may have moved.

    Each change takes `match`, the tag of the adapter as the caller read it, and refuses if it was changed since.
    """

    def __init__(self, where: Callable[[], Location], allowed: AllowedSources) -> None:
        self._where = where
        self._allowed = allowed

    def adapters(self, page: Page) -> AdapterList:
        """Describe a page of the adapters."""
        with self._opened(read_only=True) as registry, registry.frozen():
            names = sorted(registry.adapter_names())
            rows, after = page.of_sorted(names)
            waiting = {each.name: each for each in registry.replacements()}
            adapters = registry.adapters(names=names[rows])
            records = tuple(_record(each, waiting.get(each.name)) for each in adapters)
            return AdapterList(data=records, next=after)

    def adapter(self, name: str) -> AdapterRecord:
        """Describe one adapter."""
        with self._opened(read_only=True) as registry:
            return _record(registry.adapter(name), registry.replacement(name))

    def add(self, new: NewAdapter) -> tuple[AdapterRecord, bool]:
        """Add an adapter and describe it; false where it exists already with the same weights."""
        with self._opened() as registry:
            result = Importer(registry, self._allowed).add(**new.model_dump(exclude={"canary", "replaces"}))
            if new.canary is not None and not result.known:
                registry.set_canary(new.name, new.canary, replaces=new.replaces, why="entered")
            return _record(registry.adapter(new.name), registry.replacement(new.name)), not result.known

    def replace(self, name: str, new: NewWeights, match: str | None) -> AdapterRecord:
        """Add weights that will take the name over once measured, and describe the adapter as it is."""
        with self._opened() as registry:
            _expected(registry, name, match)
            result = Importer(registry, self._allowed).replace(name, **dict(new))
            return _record(registry.adapter(name), result.adapter)

    def withdraw(self, name: str) -> AdapterRecord:
        """Drop the weights that were to replace an adapter's."""
        with self._opened() as registry:
            registry.withdraw_replacement(name)
            return _record(registry.adapter(name), None)

    def change(self, name: str, change: AdapterChange, match: str | None) -> AdapterRecord:
        """Change an adapter's tags, share or state, and describe the result."""
        with self._opened() as registry:
            adapter = _expected(registry, name, match)
            if change.tags is not None:
                adapter = registry.set_tags(name, change.tags, expected=adapter)
            if change.canary is not None:
                adapter = registry.set_canary(name, change.canary, expected=adapter)
            if change.state == "enabled":
                adapter = registry.enable(name, expected=adapter)
            elif change.state == "disabled":
                state, note = AdapterState.DISABLED, change.note
                adapter = registry.set_state(name, state, note=note, expected=adapter)
            return _record(adapter, registry.replacement(name))

    def remove(self, name: str, match: str | None) -> AdapterRecord:
        """Remove an adapter, and describe it as it was."""
        with self._opened() as registry:
            adapter = _expected(registry, name, match)
            return _record(registry.remove_adapter(name, expected=adapter), None)

    @contextmanager
    def _opened(self, *, read_only: bool = False) -> Iterator[Registry]:
        try:
            registry = Registry.open(self._where(), read_only=read_only, author=_AUTHOR)
        except RegistryError as exc:
            raise UnavailableError(f"the registry cannot be opened: {exc}", retry_s=None) from exc
        with registry:
            yield registry


def _expected(registry: Registry, name: str, match: str | None) -> Adapter:
    adapter = registry.adapter(name)
    if match is not None and match.strip('"') not in ("*", _tag(adapter)):
        raise ConflictError(
            f"{name!r} is not as you read it (If-Match): somebody changed it since; read it again and repeat the change"
        )
    return adapter


def _record(adapter: Adapter, replacement: Adapter | None) -> AdapterRecord:
    return AdapterRecord(**dict(adapter), tag=_tag(adapter), replacement=replacement)


def _tag(adapter: Adapter) -> str:
    return hashlib.sha256(adapter.model_dump_json().encode()).hexdigest()[:16]
