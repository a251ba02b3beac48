"""The weight store: immutable copies of adapter weights, so that a server never loses a file.

Deleting or changing an adapter that a model server may reload can kill it (docs/decisions.md), so
servers read only from here, and new weights mean a new path.
"""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .adapter_files import AdapterFiles, inspect_adapter, read_adapter
from .errors import WeightsError


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
        if not (self.root / files.digest).is_dir():
            self._keep(files.digest, contents)
        return files

    def path(self, digest: str) -> Path:
        """Return the folder that holds the weights with this digest.

        Raises:
            WeightsError: `digest` is no digest, or the store does not hold it.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
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

    def _keep(self, digest: str, contents: dict[str, bytes]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        target = self.root / digest
        with tempfile.TemporaryDirectory(prefix=".adding-", dir=self.root) as scratch:
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
