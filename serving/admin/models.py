"""What an administrator may send, and is answered; a key that is not listed here is refused."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...adapters import Adapter, Name
from ..http.paging import PageOf

Text = Annotated[str, Field(min_length=1, max_length=2000)]
Licence = Annotated[str, Field(min_length=1, max_length=64)]
Tags = Annotated[tuple[Name, ...], Field(max_length=64)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class NewWeights(_Strict):
    """Weights and where they come from; see `docs/adapters.md`.

    `same_base` says that a base model called otherwise in the adapter's configuration is the registry's.
    """

    uri: Text
    licence: Licence | None = None
    same_base: bool = False


class NewAdapter(NewWeights):
    """An adapter that does not exist yet."""

    name: Name
    tags: Tags = ()
    source_task: Name | None = None


class AdapterChange(_Strict):
    """What is to be different; at least one of the fields."""

    state: Literal["enabled", "disabled"] | None = None
    note: Text | None = None
    tags: Tags | None = None

    @model_validator(mode="after")
    def _check_something_changes(self) -> Self:
        if self.state is None and self.tags is None:
            raise ValueError('nothing would change: give "state" or "tags"')
        if self.note is not None and self.state != "disabled":
            raise ValueError('"note" says why an adapter is disabled: give it with that state')
        return self


class AdapterRecord(Adapter):
    """An adapter as it is; `tag` stands for that, and `replacement` waits to take its name over."""

    object: Literal["adapter"] = "adapter"
    tag: str
    replacement: Adapter | None

    @property
    def entity_tag(self) -> str:
        """The tag by which a caller says which version of the adapter they mean."""
        return f'"{self.tag}"'


class AdapterList(PageOf):
    """The adapters, by name, a page at a time."""

    object: Literal["list"] = "list"
    data: tuple[AdapterRecord, ...]


class AdapterDeleted(BaseModel):
    """An adapter was forgotten."""

    object: Literal["adapter.deleted"] = "adapter.deleted"
    deleted: Literal[True] = True
    name: str
