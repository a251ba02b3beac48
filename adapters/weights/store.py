"""The weight store: immutable copies of adapter weights, so that a server never loses a file.

Deleting or changing an adapter that a model server may reload can kill it (docs/decisions.md), so
servers read only from here, and new weights mean a new path.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..errors import WeightsError
from .adapter_files import CONFIG, WEIGHTS, AdapterFiles, inspect_adapter

ADDING = ".adding-"
"""How the scratch folders begin in which weights are checked and copied."""
_MARK, _FREEING = ".unnamed-", ".freeing-"
_DIGEST = re.compile(r"[0-9a-f]{64}")


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
        """A folder in which weights can be copied and checked before they are kept; it goes in the end."""
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=ADDING, dir=self.root) as scratch:
            yield Path(scratch)

    def keep(self, scratch: Path, files: AdapterFiles) -> None:
        """Take the adapter that was read from a `scratch_folder` into the store unless it is there already."""
        # Before looking whether they are there, so that whoever is about to free them brings them back.
        self.unmark(files.digest)
        if (self.root / files.digest).is_dir():
            return
        folder = scratch / files.digest
        folder.mkdir()
        for name in (CONFIG, WEIGHTS):
            _make_last(scratch / name)
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
        """Read the stored weights again, and return what they are once their digest is found to be this.

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

    def digests(self) -> list[str]:
        """The digests of all weights."""
        return sorted(name for name in self._folders("") if _DIGEST.fullmatch(name))

    def scratch(self) -> list[Path]:
        """The folders in which weights are checked and copied; those of a process that was killed stay."""
        return [self.root / f"{ADDING}{name}" for name in sorted(self._folders(ADDING))]

    def mark(self, digest: str) -> datetime:
        """Mark weights that nothing names, and return since when they are marked."""
        mark = self._mark(digest)
        with suppress(FileExistsError):
            mark.touch(exist_ok=False)
        return datetime.fromtimestamp(mark.stat().st_mtime, UTC)

    def unmark(self, digest: str) -> None:
        """Let weights stay."""
        self._mark(digest).unlink(missing_ok=True)

    def free(self, digest: str) -> bool:
        """Remove marked weights; false where somebody adds them again meanwhile, and they stay.

        This takes no lock. They are moved away before the mark is looked at, and whoever adds them takes the mark away
        before looking for them: so either this sees that the mark is gone, or that process copies them anew.
        """
        (self.root / digest).rename(self.root / f"{_FREEING}{digest}")
        return self._finish(digest)

    def recover(self) -> None:
        """Finish what was cut short while it freed weights, or bring them back."""
        for digest in self._folders(_FREEING):
            self._finish(digest)

    def _finish(self, digest: str) -> bool:
        doomed = self.root / f"{_FREEING}{digest}"
        if self._mark(digest).exists():
            shutil.rmtree(doomed)
            self.unmark(digest)
            return True
        try:
            doomed.rename(self.root / digest)
        except OSError:
            # They are there again as a copy.
            shutil.rmtree(doomed, ignore_errors=True)
        return False

    def _mark(self, digest: str) -> Path:
        return self.root / f"{_MARK}{digest}"

    def _folders(self, prefix: str) -> list[str]:
        """The names, without `prefix`, of the folders that begin with it."""
        found = self.root.iterdir() if self.root.is_dir() else ()
        named = (path for path in found if path.name.startswith(prefix) and path.is_dir())
        return [path.name.removeprefix(prefix) for path in named]


def _make_last(path: Path) -> None:
    """Let a file be on the disk for good, and nobody write to it."""
    path.chmod(0o444)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
