"""The weight store: immutable copies of adapter weights, so that a server never loses a file.

Deleting or changing an adapter that a model server may reload can kill the server (docs/decisions.md), so servers read
only from here, and new weights mean a new path. It is not known which weights a server holds, and one that evicts an
adapter loads it again from the store. So weights that no record names are first marked, and removed only by a later
run, after a time in which every server has seen that they are gone.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..errors import WeightsError
from .adapter_files import CONFIG, WEIGHTS, AdapterFiles, inspect_adapter

GRACE = timedelta(hours=24)
_SCRATCH, _MARK, _FREEING = ".adding-", ".unnamed-", ".freeing-"
"""How the names begin of scratch folders, of marks of weights that nothing names, and of weights being removed."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Leftover:
    """Weights that nothing names, or the scratch folder of a killed process, of `size` bytes, unused `since` a time."""

    folder: Path
    size: int
    since: datetime
    freed: bool = False


@dataclass(frozen=True)
class WeightStore:
    """Content-addressed, immutable copies of adapter weights, each in `<root>/<digest>/`."""

    root: Path

    def add(self, folder: Path) -> AdapterFiles:
        """Copy the adapter in `folder` into the store unless it is there already.

        Raises:
            WeightsError: the weights are refused; see `inspect_adapter`.
        """
        with self.scratch_folder() as scratch:
            files = inspect_adapter(folder, copy_to=scratch)
            self.keep(scratch, files)
        return files

    @contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """A folder in which weights can be copied and checked before they are kept; it is removed in the end."""
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self.root) as scratch:
            yield Path(scratch)

    def keep(self, scratch: Path, files: AdapterFiles) -> None:
        """Move the adapter that was read from a `scratch_folder` into the store unless it is there already."""
        # Before checking whether they are there, so that a process that is about to free them restores them.
        self._unmark(files.digest)
        if (self.root / files.digest).is_dir():
            return
        folder = scratch / files.digest
        folder.mkdir()
        for name in (CONFIG, WEIGHTS):
            _make_permanent(scratch / name)
            (scratch / name).rename(folder / name)
        _sync(folder)
        try:
            folder.rename(self.root / files.digest)
        except OSError:
            # A concurrent add of the same weights came first; its copy is as good as ours.
            if not (self.root / files.digest).is_dir():
                raise
        _sync(self.root)

    def path(self, digest: str) -> Path:
        """Return the folder that holds the weights with this digest.

        Raises:
            WeightsError: `digest` is no digest, or the store does not hold it.
        """
        if not _DIGEST.fullmatch(digest):
            raise WeightsError(f"{digest!r} is not a weights digest: wanted 64 hexadecimal digits")
        folder = self.root / digest
        if not folder.is_dir():
            raise WeightsError(f"no weights {digest} in {self.root}: add the adapter again")
        return folder

    def verify(self, digest: str) -> AdapterFiles:
        """Read the stored weights again, and return their description if their digest is still this.

        Raises:
            WeightsError: they are absent or have changed.
        """
        folder = self.path(digest)
        files = inspect_adapter(folder)
        if files.digest != digest:
            raise WeightsError(
                f"the weights in {folder} have changed: their digest is now {files.digest}; "
                "remove that folder while no server uses it and add the adapter again"
            )
        return files

    def clean(self, named: Collection[str], *, grace: timedelta = GRACE, free: bool = False) -> list[Leftover]:
        """List and mark what is not `named`; with `free`, remove what was marked for `grace`.

        `named` are the digests that the registry names (`Registry.named_weights`), which must be the only one that uses
        this store.

        Raises:
            OSError: the store cannot be written.
        """
        if free:
            for digest in self._names(_FREEING):
                self._finish(digest)
        return [*self._clean_weights(named, grace, free=free), *self._clean_scratch(grace, free=free)]

    def _clean_weights(self, named: Collection[str], grace: timedelta, *, free: bool) -> Iterator[Leftover]:
        for digest in sorted(name for name in self._names("") if _DIGEST.fullmatch(name)):
            if digest in named:
                self._unmark(digest)
                continue
            since, size = self.mark(digest), _size(self.root / digest)
            yield Leftover(self.root / digest, size, since, free and _is_over(since, grace) and self.free(digest))

    def _clean_scratch(self, grace: timedelta, *, free: bool) -> Iterator[Leftover]:
        for name in sorted(self._names(_SCRATCH)):
            folder = self.root / f"{_SCRATCH}{name}"
            # A folder in use may vanish at any moment. One that was not written to for so long is a killed process's.
            with suppress(FileNotFoundError):
                newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
                since, size = datetime.fromtimestamp(newest, UTC), _size(folder)
                if freed := free and _is_over(since, grace):
                    shutil.rmtree(folder)
                yield Leftover(folder, size, since, freed)

    def mark(self, digest: str) -> datetime:
        """Mark weights as named by nothing, and return the time of their first mark."""
        mark = self._mark(digest)
        with suppress(FileExistsError):
            mark.touch(exist_ok=False)
        return datetime.fromtimestamp(mark.stat().st_mtime, UTC)

    def _unmark(self, digest: str) -> None:
        self._mark(digest).unlink(missing_ok=True)

    def free(self, digest: str) -> bool:
        """Remove marked weights; false where another process adds them again meanwhile, and they stay.

        This takes no lock. The weights are moved away before the mark is checked, and a process that adds them removes
        the mark before it looks for them. So either this sees that the mark is gone, or that process copies them anew.
        """
        (self.root / digest).rename(self.root / f"{_FREEING}{digest}")
        return self._finish(digest)

    def _finish(self, digest: str) -> bool:
        doomed = self.root / f"{_FREEING}{digest}"
        if self._mark(digest).exists():
            shutil.rmtree(doomed)
            self._unmark(digest)
            return True
        try:
            doomed.rename(self.root / digest)
        except OSError:
            # Another process has copied them anew.
            shutil.rmtree(doomed, ignore_errors=True)
        return False

    def _mark(self, digest: str) -> Path:
        return self.root / f"{_MARK}{digest}"

    def _names(self, prefix: str) -> list[str]:
        """The names, without `prefix`, of the folders that begin with it."""
        paths = self.root.iterdir() if self.root.is_dir() else ()
        return [path.name.removeprefix(prefix) for path in paths if path.name.startswith(prefix) and path.is_dir()]


def _make_permanent(path: Path) -> None:
    """Write a file to the disk for good, and make it read-only."""
    path.chmod(0o444)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_over(since: datetime, grace: timedelta) -> bool:
    return since + grace <= datetime.now(UTC)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
