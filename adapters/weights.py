"""The weight store: immutable copies of adapter weights, so that a server never loses a file.

Deleting or changing an adapter that a model server may reload can kill it (docs/decisions.md), so
servers read only from here, and new weights mean a new path.
"""

import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .adapter_files import AdapterFiles, inspect_adapter, read_adapter
from .errors import WeightsError

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
        files, contents = read_adapter(folder)
        # Before looking whether they are there, so that whoever is about to free them brings them back.
        self.unmark(files.digest)
        if not (self.root / files.digest).is_dir():
            self._keep(files.digest, contents)
        return files

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

    def verify(self, digest: str) -> None:
        """Read the stored weights again and compare them with their digest.

        Raises:
            WeightsError: they are absent or have changed.
        """
        folder = self.path(digest)
        found = inspect_adapter(folder).digest
        if found != digest:
            raise WeightsError(
                f"the weights in {folder} have changed: their digest is now {found}; "
                "remove that folder while no server uses it and add the adapter again"
            )

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

    def _keep(self, digest: str, contents: dict[str, bytes]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        target = self.root / digest
        with tempfile.TemporaryDirectory(prefix=ADDING, dir=self.root) as scratch:
            folder = Path(scratch) / digest
            folder.mkdir()
            for name, data in contents.items():
                _write_read_only(folder / name, data)
            _sync_folder(folder)
            try:
                folder.rename(target)
            except OSError:
                # A concurrent add of the same weights came first; its copy is as good as ours.
                if not target.is_dir():
                    raise
        _sync_folder(self.root)


def _write_read_only(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o444)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
