"""Adapters that enter with a share of the traffic they would win, and each step that they took, with its figures."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Select, func, insert, select

from ..adapter import Adapter, AdapterState
from ..errors import RegistryError
from . import schema
from .adapters import AdapterTable, _find_adapter

MOST = 4
"""How many adapters may be in a canary at a time: with more, none would get outcomes enough."""
Why = Literal["entered", "promoted", "rolled back", "by hand", "replaced"]
_steps = schema.canary_steps


class CanaryStep(BaseModel):
    """From `made_at` on an adapter gets `share` of what it would win (0: nothing, 1: all), and `figures` say why."""

    model_config = ConfigDict(frozen=True)

    adapter: str
    weights_digest: str
    made_at: datetime
    made_by: str
    share: Annotated[float, Field(ge=0, le=1)]
    why: Why
    figures: Mapping[str, Any] | None = None


class CanaryTable(AdapterTable):
    """An adapter's `canary` is its share now (None: all); every change of it is kept as a step."""

    def set_canary(
        self,
        name: str,
        share: float,
        *,
        replaces: str | None = None,
        why: Why = "by hand",
        figures: Mapping[str, Any] | None = None,
        expected: Adapter | None = None,
    ) -> Adapter:
        """Give an adapter `share` of the traffic it would win, from 0 to 1, and return it as it now is.

        With `replaces` it does so in the place of another, which gets no more once this one gets all.

        Raises:
            RegistryError: there is no such adapter, the share is none, too many are in a canary already, or what it
                replaces is no other that gets all it wins.
            ConflictError: it was changed since it was as `expected`.
        """
        # Written so that NaN is refused too.
        if not 0 <= share <= 1:
            raise RegistryError(f"{share} is no share of the traffic: give a number from 0 (none) to 1 (all)")
        with self._revising() as connection:
            adapter = _find_adapter(connection, name, expected=expected)
            canary = schema.adapters.c.canary
            others = select(func.count()).where(canary > 0, schema.adapters.c.name != name)
            if 0 < share < 1 and connection.execute(others).scalar_one() >= MOST:
                raise RegistryError(
                    f"{MOST} adapters are in a canary already, and share the outcomes there are: promote one or take "
                    "it back first (traitroute adapters canary)"
                )
            if replaces is not None:
                _check_replaceable(adapter, _find_adapter(connection, replaces))
                self._update(connection, name, {"replaces": replaces})
            old = replaces or adapter.replaces
            if share == 1 and old and adapter.state is not AdapterState.READY:
                raise RegistryError(f"{name} is {adapter.state}: it can take the place of {old} once it is measured")
            self._step(connection, adapter, share, why, figures)
            if share == 1 and old and connection.execute(_named(old)).first():
                self._step(connection, _find_adapter(connection, old), 0.0, "replaced", {"by": name})
            return _find_adapter(connection, name)

    def _step(
        self, connection: Connection, adapter: Adapter, share: float, why: Why, figures: Mapping[str, Any] | None
    ) -> None:
        self._update(connection, adapter.name, {"canary": None if share == 1 else share})
        # Counted here and not by the database, whose own count a copied registry does not know.
        number = connection.execute(select(func.coalesce(func.max(_steps.c.number), 0) + 1)).scalar_one()
        step = {
            "number": number,
            "adapter": adapter.name,
            "weights_digest": adapter.weights_digest,
            "share": share,
            "why": why,
        }
        made = {"made_at": datetime.now(UTC), "made_by": self.author}
        connection.execute(insert(_steps).values(step | made | {"figures": dict(figures) if figures else None}))

    def canaries(self) -> list[Adapter]:
        """List the ready adapters that get a share of what they would win, by name."""
        ready = self.adapters(AdapterState.READY)
        return [adapter for adapter in ready if adapter.canary]

    def canary_steps(self, name: str | None = None, *, newest: int | None = None) -> list[CanaryStep]:
        """List the steps of the adapter named `name`, the first one first, those of earlier weights too.

        Without a name those of all adapters, and of these, where `newest` says so, the last ones only.
        """
        columns = [_steps.c[field] for field in CanaryStep.model_fields]
        query = select(*columns).order_by(_steps.c.number.desc()).limit(newest)
        if name is not None:
            query = query.where(_steps.c.adapter == name)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        return [CanaryStep.model_validate(dict(row._mapping)) for row in reversed(rows)]


def _named(name: str) -> Select[Any]:
    return select(schema.adapters.c.name).where(schema.adapters.c.name == name)


def _check_replaceable(new: Adapter, old: Adapter) -> None:
    if old.name == new.name or old.base_digest != new.base_digest:
        raise RegistryError(f"{new.name} cannot replace {old.name}: give another adapter for the same base model")
    if old.canary is not None:
        raise RegistryError(
            f"{new.name} cannot replace {old.name}, which gets a share of what it wins itself: give it all or take it "
            f"back first (traitroute adapters canary {old.name} --to all)"
        )
