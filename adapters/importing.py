"""How an adapter comes in: fetched, checked, copied into the store, recorded as pending.

Nothing is stored of what is refused: it is checked in a scratch folder, which then goes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .adapter import Adapter, AdapterState, check_name, check_not_base, model_name
from .cache import cache_folder
from .errors import ConflictError, InputError, RegistryError, WeightsError
from .registry.registry import Registry
from .weights.adapter_files import AdapterFiles, inspect_adapter
from .weights.base_shapes import TELLING, BaseShapes
from .weights.full_match import check_full_match
from .weights.sources import AllowedSources, Source, fetch, read_licence
from .weights.tensor_file import shown


@dataclass(frozen=True)
class Base:
    """The base model that adapters are for; `folder` where its files are at hand."""

    name: str
    digest: str
    folder: Path | None = None


@dataclass(frozen=True)
class ImportResult:
    """An adapter as it is recorded; `known` where it was there before, with these very weights."""

    adapter: Adapter
    known: bool = False


@dataclass(frozen=True)
class _Fetched:
    uri: str
    folder: Path
    files: AdapterFiles
    licence: str | None


class Importer:
    """Takes adapters into `registry` from where `allowed` lets them come from.

    `base` is needed by a registry without adapters, and by one with several base models.
    """

    def __init__(
        self,
        registry: Registry,
        allowed: AllowedSources,
        *,
        base: Base | None = None,
        largest: int | None = None,
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
        """Record the adapter at `uri` as pending: to be had by its name, and by `auto` once it is measured.

        `same_base` says that a base model called otherwise in the adapter's configuration is this one.

        Raises:
            InputError: the name, the place, the weights or what else was given is refused; see the subclasses.
        """
        _check_names(name, *tags, *filter(None, [source_task]))
        base = self._base_model()
        _check_not_base(name, base)
        stated = {"tags": tuple(dict.fromkeys(tags)), "source_task": source_task}
        with self._fetched(uri, base, same_base=same_base) as fetched:
            if (known := self._known(name, fetched.files.digest)) is not None:
                return ImportResult(known, known=True)
            adapter = _record(name, base, fetched, licence=licence, **stated)
            self._registry.weights.keep(fetched.folder, fetched.files)
            return self._recorded(adapter)

    def replace(self, name: str, uri: str, *, licence: str | None = None, same_base: bool = False) -> ImportResult:
        """Let the weights at `uri` wait to take the name over; the old ones are served until they are measured.

        Raises:
            InputError: see `add`; or there is no such adapter, or a replacement of it waits already.
        """
        old = self._registry.adapter(name)
        folder = self._base.folder if self._base else None
        base = Base(old.base_model, old.base_digest, folder)
        _check_not_base(name, base)
        with self._fetched(uri, base, same_base=same_base) as fetched:
            if (known := self._waiting(name, fetched.files.digest)) is not None:
                return ImportResult(known, known=True)
            stated = {"licence": licence or old.licence, "source_task": old.source_task}
            new = _record(name, base, fetched, **stated)
            self._registry.weights.keep(fetched.folder, fetched.files)
            return ImportResult(self._registry.replace_adapter(new, expected=old))

    def _recorded(self, adapter: Adapter) -> ImportResult:
        try:
            self._registry.add_adapter(adapter)
        except RegistryError:
            # Somebody else may have added it while this one was fetched.
            if (known := self._known(adapter.name, adapter.weights_digest)) is None:
                raise
            return ImportResult(known, known=True)
        return ImportResult(self._registry.adapter(adapter.name))

    def _base_model(self) -> Base:
        found = self._registry.base_models()
        if self._base is not None:
            if found and self._base.digest not in found:
                raise RegistryError(
                    f"the registry's adapters are for {', '.join(sorted(set(found.values())))}, not for "
                    f"{self._base.name} as it is now: a registry is for one base model, make another"
                )
            return self._base
        if len(found) != 1:
            several = ", ".join(sorted(set(found.values()))) or "none yet"
            raise RegistryError(
                f"which base model is the adapter for? The registry has adapters for: {several}; say it with --base"
            )
        (digest,) = found
        return Base(found[digest], digest)

    @contextmanager
    def _fetched(self, uri: str, base: Base, *, same_base: bool) -> Iterator[_Fetched]:
        """The adapter at `uri` in a scratch folder, once it has passed every check."""
        place = self._allowed.check(Source.parse(uri))
        with self._registry.weights.scratch_folder() as folder:
            fetch(place, folder, largest=self._largest)
            try:
                files = inspect_adapter(folder)
                _check_servable(folder, files)
                _check_base_name(folder, files, base, same_base=same_base)
                self._shapes(base).check(files)
            except WeightsError as exc:
                # The scratch folder means nothing to whoever reads this.
                why = str(exc).replace(str(folder), str(place))
                raise WeightsError(why if str(place) in why else f"{place}: {why}") from exc
            yield _Fetched(str(place), folder, files, read_licence(folder / "README.md"))

    def _shapes(self, base: Base) -> BaseShapes:
        measured = self._registry.adapters(AdapterState.READY, limit=TELLING, base_digest=base.digest)
        kept = (self._registry.weights.root / each.weights_digest for each in measured)
        return BaseShapes.known(base.folder or _local_folder(base.name), kept)

    def _known(self, name: str, digest: str) -> Adapter | None:
        """The adapter of this name with these weights; any other with either is in the way."""
        same = next(iter(self._registry.adapters(name=name)), None)
        if same is not None and same.weights_digest == digest:
            return same
        if same is not None:
            raise ConflictError(
                f"an adapter named {name!r} is there already, with other weights: choose another name, or replace it"
            )
        self._check_new(name, digest)
        return None

    def _waiting(self, name: str, digest: str) -> Adapter | None:
        """The replacement with these weights that waits already; any other is in the way."""
        waiting = self._registry.replacement(name)
        if waiting is not None and waiting.weights_digest == digest:
            return waiting
        if waiting is not None:
            raise ConflictError(
                f"other weights ({waiting.weights_digest[:12]}) wait to replace {name!r} and are not measured yet: "
                "measure them, or withdraw them first"
            )
        self._check_new(name, digest)
        return None

    def _check_new(self, name: str, digest: str) -> None:
        store = self._registry
        holders = store.adapters(weights_digest=digest) + store.replacements(weights_digest=digest)
        other = next((each for each in holders if each.name != name), None)
        if other is not None:
            raise ConflictError(
                f"these weights are there already, as {other.name!r} ({other.state}): "
                "ask for it by that name, or remove it first"
            )


def _check_names(*names: str) -> None:
    try:
        for name in names:
            check_name(name)
    except ValueError as exc:
        raise InputError(str(exc)) from exc


def _check_not_base(name: str, base: Base) -> None:
    """Check the name before anything is fetched; whoever records an adapter checks it too."""
    try:
        check_not_base(name, base.name)
        if base.folder is not None:
            check_not_base(name, str(base.folder))
    except ValueError as exc:
        raise InputError(str(exc)) from exc


def _record(name: str, base: Base, fetched: _Fetched, *, licence: str | None, **stated: Any) -> Adapter:
    return Adapter(
        name=name,
        base_model=base.name,
        base_digest=base.digest,
        weights_digest=fetched.files.digest,
        rank=fetched.files.rank,
        target_modules=fetched.files.target_modules,
        method=fetched.files.method,
        uri=fetched.uri,
        licence=licence or fetched.licence,
        **stated,
    )


def _check_servable(folder: Path, files: AdapterFiles) -> None:
    if files.unservable is not None:
        raise WeightsError(f"{folder} cannot be served: {files.unservable}")
    if files.pattern is not None:
        check_full_match(files.pattern, files.layers)


def _check_base_name(folder: Path, files: AdapterFiles, base: Base, *, same_base: bool) -> None:
    """Compare what the configuration calls the base model; its shapes may be those of several models."""
    given = files.base_model
    if given and not same_base and model_name(given) != model_name(base.name):
        raise WeightsError(
            f"{folder}: by its configuration it was trained for {shown(given)}, and this registry is for {base.name!r}: "
            "if that is the same model under another name, say so with --same-base (over HTTP, same_base)"
        )


def _local_folder(base: str) -> Path | None:
    """The folder of a base model that is a folder, or was converted into the cache."""
    for folder in (Path(base), cache_folder() / base):
        if (folder / "config.json").is_file():
            return folder
    return None
