"""How adapters are imported: fetched, checked, copied into the weight store, and recorded as pending.

Nothing is stored of an adapter that is refused: it is checked in a scratch folder, which is then removed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .adapter import Adapter, Base, check_name, check_not_base
from .errors import ConflictError, InputError, RegistryError, WeightsError
from .registry.registry import Registry
from .weights.adapter_files import AdapterFiles, inspect_adapter
from .weights.base_shapes import SAMPLED, BaseShapes
from .weights.fetching import fetch
from .weights.sources import AllowedSources, Source
from .weights.tensor_file import shown


@dataclass(frozen=True)
class ImportResult:
    """An adapter as it is recorded; `known` if it was there before, with exactly these weights.

    `datasets` are the ids of its training data by its model card.
    """

    adapter: Adapter
    known: bool = False
    datasets: tuple[str, ...] = ()


class Importer:
    """Imports adapters into `registry` from where `allowed` lets them come from.

    `base` is needed by a registry without adapters, and by one with several base models. `largest` limits the bytes of
    weights.
    """

    def __init__(
        self, registry: Registry, allowed: AllowedSources, *, base: Base | None = None, largest: int | None = None
    ) -> None:
        self._registry = registry
        self._allowed = allowed
        self._base = base
        self._largest = largest

    def add(
        self,
        name: str,
        uri: str,
        *,
        tags: Sequence[str] = (),
        source_task: str | None = None,
        licence: str | None = None,
        same_base: bool = False,
    ) -> ImportResult:
        """Record the adapter at `uri` as pending: served by its name, and chosen by `auto` once it is measured.

        `same_base` states that a base model named otherwise in the adapter's configuration is this one.

        Raises:
            InputError: the name, the source, the weights or another argument is refused; see the subclasses.
        """
        _check(check_name, name)
        for word in (*tags, *filter(None, [source_task])):
            _check(check_name, word)
        stated = {"tags": tuple(dict.fromkeys(tags)), "source_task": source_task, "licence": licence}
        return self._import(name, uri, self._base_model(), stated, same_base=same_base)

    def replace(self, name: str, uri: str, *, licence: str | None = None, same_base: bool = False) -> ImportResult:
        """Let the weights at `uri` wait to take over the name; the old ones are served until the new are measured.

        Raises:
            InputError: see `add`; or there is no such adapter, or a replacement of it waits already.
        """
        old = self._registry.adapter(name)
        base = Base(old.base_model, old.base_digest, self._base.folder if self._base else None)
        stated = {"licence": licence or old.licence, "source_task": old.source_task}
        return self._import(name, uri, base, stated, same_base=same_base, replaces=old)

    def _import(
        self,
        name: str,
        uri: str,
        base: Base,
        stated: dict[str, Any],
        *,
        same_base: bool,
        replaces: Adapter | None = None,
    ) -> ImportResult:
        """Import an adapter, a line a stage."""
        _check(check_not_base, name, base.name, *filter(None, [base.folder and str(base.folder)]))
        place = self._allowed.check(Source.parse(uri))
        source, store = str(place), self._registry.weights
        with store.scratch_folder() as folder:
            card = fetch(place, folder, largest=self._largest)
            files = _inspect(folder, source, base, self._base_shapes(base, store.root), same_base=same_base)
            if (known := self._known(name, files.digest, replaces)) is not None:
                return ImportResult(known, known=True, datasets=card.datasets)
            stated["licence"] = stated["licence"] or card.licence
            adapter = files.adapter(name, base.name, base.digest, uri=source, **stated)
            store.keep(folder, files)
            return replace(self._write(adapter, replaces), datasets=card.datasets)

    def _base_model(self) -> Base:
        known = self._registry.base_models()
        names = ", ".join(sorted(set(known.values())))
        if self._base is not None:
            if known and self._base.digest not in known:
                raise RegistryError(
                    f"the registry's adapters are for {names}, not for "
                    f"{self._base.name} as it is now: a registry is for one base model, make another"
                )
            return self._base
        if len(known) != 1:
            raise RegistryError(
                "which base model is the adapter for? The registry has adapters for: "
                f"{names or 'none yet'}; say it with --base"
            )
        (digest,) = known
        return Base(known[digest], digest)

    def _base_shapes(self, base: Base, weights: Path) -> BaseShapes:
        measured = self._registry.measured_weights(base.digest, limit=SAMPLED)
        return BaseShapes.known(base.local_folder(), [weights / digest for digest in measured])

    def _known(self, name: str, digest: str, replaces: Adapter | None) -> Adapter | None:
        """Return the adapter, or the replacement, that has this name and these weights already.

        Raises:
            ConflictError: another one has the name or the weights.
        """
        adapters, replacements = self._registry.holders(name, digest)
        rival = next((each for each in (replacements if replaces else adapters) if each.name == name), None)
        if rival is not None and rival.weights_digest == digest:
            return rival
        if rival is not None and replaces:
            raise ConflictError(
                f"other weights ({rival.weights_digest[:12]}) wait to replace {name!r} and are not measured yet: "
                "measure them, or withdraw them first"
            )
        if rival is not None:
            raise ConflictError(
                f"an adapter named {name!r} is there already, with other weights: choose another name, or replace it"
            )
        other = next((each for each in adapters + replacements if each.name != name), None)
        if other is not None:
            raise ConflictError(
                f"these weights are there already, as {other.name!r} ({other.state}): "
                "ask for it by that name, or remove it first"
            )
        return None

    def _write(self, adapter: Adapter, replaces: Adapter | None) -> ImportResult:
        if replaces is not None:
            return ImportResult(self._registry.replace_adapter(adapter, expected=replaces))
        try:
            return ImportResult(self._registry.add_adapter(adapter))
        except RegistryError:
            # Another process may have added it while this one fetched.
            if (known := self._known(adapter.name, adapter.weights_digest, None)) is None:
                raise
            return ImportResult(known, known=True)


def _check(check: Any, *words: str) -> None:
    """Check words given by the user, before anything is fetched."""
    try:
        check(*words)
    except ValueError as exc:
        raise InputError(str(exc)) from exc


def _inspect(folder: Path, source: str, base: Base, shapes: BaseShapes, *, same_base: bool) -> AdapterFiles:
    """Read the adapter in the scratch `folder`, which came from `source`, and check that servers can serve it."""
    try:
        files = inspect_adapter(folder)
        files.check_servable(folder)
        # Several models may have the same shapes, so the name in the configuration counts too.
        if files.base_model and not same_base and not base.is_named(files.base_model):
            raise WeightsError(
                f"by its configuration it was trained for {shown(files.base_model)}, and this registry is for "
                f"{base.name!r}: if that is the same model under another name, say so with --same-base (over HTTP, "
                "same_base)"
            )
        shapes.check(files)
    except WeightsError as exc:
        # The scratch folder would mean nothing to the reader of the message.
        why = str(exc).replace(str(folder), source)
        raise WeightsError(why if source in why else f"{source}: {why}") from exc
    return files
