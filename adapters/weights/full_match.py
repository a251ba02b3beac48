"""A stranger's regular expression, matched in a process of its own: one can take for ever, and hold all that runs beside it.

PEFT lets `target_modules` be a regular expression that matches the whole path of each layer.
"""

import json
import subprocess
import sys
from collections.abc import Collection

from ..errors import WeightsError
from .tensor_file import shown

LONGEST = 4000
_SECONDS, _MEMORY = 1, 256 * 2**20
# The process may wait long for its turn on a busy machine, but not compute long.
_WAIT_S = 20
_PROGRAM = f"""
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({_SECONDS}, {_SECONDS}))
if sys.platform == "linux":
    resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY}, {_MEMORY}))
pattern, names = json.load(sys.stdin)
matches = re.compile(pattern).fullmatch
print(next((name for name in names if not matches(name)), ""))
"""


def check_full_match(pattern: str, layers: Collection[str]) -> None:
    """Check that `pattern` matches the path of each of `layers`.

    Raises:
        WeightsError: it does not, is no regular expression, or takes too long.
    """
    what = f"target_modules: the pattern {shown(pattern)}"
    cure = "give the modules' names in a list"
    if len(pattern) > LONGEST:
        raise WeightsError(f"{what} is longer than {LONGEST} characters: {cure}")
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-W", "ignore", "-c", _PROGRAM],
            input=json.dumps([pattern, list(layers)]),
            capture_output=True,
            text=True,
            timeout=_WAIT_S,
        )
    except subprocess.TimeoutExpired as exc:
        raise WeightsError(f"{what} takes more than {_WAIT_S} s: {cure}") from exc
    if done.returncode < 0:
        raise WeightsError(f"{what} takes more than {_SECONDS} s: {cure}")
    if done.returncode > 0:
        raise WeightsError(f"{what} is no regular expression that can be matched: {cure}")
    if layer := done.stdout.strip():
        raise WeightsError(f"{what} does not match {layer}, for which there are tensors: {cure}")
