"""Measure the house: files, lines and folders of the product code, at any commit.

    python scripts/measure_house.py                 the commit that is checked out
    python scripts/measure_house.py 90215be HEAD    two commits, side by side

Product code is what the wheel holds: `adapters router profiling serving cli suites` and the top-level `__init__.py`.
"""

import argparse
import io
import subprocess
import tarfile
from collections import Counter
from pathlib import Path, PurePosixPath
from statistics import median

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("adapters", "router", "profiling", "serving", "cli", "suites")


def lines_at(commit: str) -> dict[PurePosixPath, int]:
    """Lines of every Python file at a commit."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = [m for m in tar.getmembers() if m.isfile() and m.name.endswith(".py")]
        return {PurePosixPath(m.name): len(tar.extractfile(m).read().splitlines()) for m in files}  # type: ignore[union-attr]


def measures(lines: dict[PurePosixPath, int]) -> dict[str, str]:
    """What is measured of a commit, in the order it is shown."""
    product = {f: n for f, n in lines.items() if f.parts[0] in ROOMS or str(f) == "__init__.py"}
    sizes = {f: n for f, n in product.items() if f.name != "__init__.py"}
    folders = Counter(str(f.parent) for f in sizes)
    largest, fullest = max(sizes, key=lambda f: sizes[f]), max(folders, key=lambda f: folders[f])
    rows = {"product lines": sum(product.values()), "product files": len(product)}
    shown = {name: f"{value:,}" for name, value in rows.items()}
    shown["median file"] = f"{median(sizes.values()):.0f}"
    shown["largest file"] = f"{sizes[largest]} {largest}"
    shown["files under 60 lines"] = str(sum(n < 60 for n in sizes.values()))
    shown["folders"] = str(len(folders))
    shown["most modules in a folder"] = f"{folders[fullest]} {fullest}/"
    for room in (*ROOMS, "benchmarks", "tests", "scripts"):
        inside = [n for f, n in lines.items() if f.parts[0] == room]
        shown[f"{room}/"] = f"{sum(inside):,} lines in {len(inside)} files"
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="*", default=["HEAD"], help="commits to measure (default: HEAD)")
    commits = parser.parse_args().commits
    columns = [measures(lines_at(commit)) for commit in commits]
    table = Table("", *commits)
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    Console().print(table)


if __name__ == "__main__":
    main()
