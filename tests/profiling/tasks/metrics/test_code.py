"""Code that passes its tests, and what code can do to the machine it is judged on: nothing."""

import time
from pathlib import Path

import pytest
from traitroute.adapters import MetricError
from traitroute.profiling import Task
from traitroute.profiling.tasks.metrics import sandbox
from traitroute.profiling.tasks.metrics.sandbox import Limits, run_tests
from traitroute.profiling.tasks.sources import FolderSource

from .conftest import Judge

MBPP = Path(__file__).parents[5] / "shared" / "data" / "mbpp"
needs_sandbox = pytest.mark.skipif(sandbox.unavailable() is not None, reason=str(sandbox.unavailable()))
TESTS = ["assert double(2) == 4", "assert double(0) == 0", "assert double(-3) == -6"]
RIGHT = "def double(x):\n    return 2 * x\n"


@needs_sandbox
@pytest.mark.parametrize(
    ("output", "strict", "lenient", "failed"),
    [
        (RIGHT, True, True, False),
        (f"Sure:\n```python\n{RIGHT}```\nThat is all.", True, True, False),
        (f"```\n{RIGHT}", True, True, False),
        ("def double(x):\n    return abs(2 * x)\n", False, True, False),
        ("def double(x):\n    return x\n", False, False, False),
        ("def halve(x):\n    return x / 2\n", False, False, False),
        ("It doubles a number.", False, False, True),
        ("", False, False, True),
        ("(" * 100_000, False, False, True),
        ("-" * 100_000 + "1", False, False, True),
    ],
)
def test_output_is_judged_by_its_tests(judge: Judge, output: str, strict: bool, lenient: bool, failed: bool) -> None:
    judged = judge("code", output, tests=TESTS)
    assert (judged.strict, judged.lenient, judged.parse_failure) == (strict, lenient, failed)


@needs_sandbox
def test_tests_may_need_code_of_the_row_after_the_answer(judge: Judge) -> None:
    metric = {"name": "code", "tests": "test_list", "setup": "test_setup"}
    columns = {"test_list": ["assert seven == 7"], "test_setup": "seven = Number(7).value"}
    answer = "class Number:\n    def __init__(self, value):\n        self.value = value\n"
    assert judge(metric, answer, **columns).strict


@needs_sandbox
@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(0)",
        "raise SystemExit",
        "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        "import socket; socket.create_connection(('127.0.0.1', {port}), 1)",
        "open({secret!r}).read()",
        "open({secret!r}, 'w').write('x')",
        "open('/etc/passwd').read()",
        "open('/usr/x', 'w')",
        "import os; os.listdir({folder!r})",
        "import os; assert os.environ.get('TRAITROUTE_SECRET')",
        "import os; os.fork()",
        "import threading; threading.Thread(target=print).start()",
        "import subprocess; subprocess.run(['/bin/ls'], check=True)",
        "import os; os.setuid(0)",
        "import os; os.kill({pid}, 0)",
        "import ctypes; assert ctypes.CDLL(None).mount(b'/tmp', b'/usr', None, 4096, None) == 0",
        "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (9, 9))",
        "text = 'x' * 10**9",
        "import os\nfor i in range(9999): open(f'/tmp/{{i}}', 'wb').write(b'x' * 60_000)",
        "open('/tmp/x', 'wb').write(b'x' * 100_000)",
        "import os\nwhile True: os.write(3, b'0 1 2\\n' * 1000)",
        "import pydantic",
    ],
)
def test_what_could_harm_passes_no_test(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import socket

    monkeypatch.setenv("TRAITROUTE_SECRET", "key")
    secret = tmp_path / "secret"
    secret.write_text("key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        given = {"port": server.getsockname()[1], "secret": str(secret), "folder": str(tmp_path), "pid": os.getpid()}
        ran = run_tests(code.format(**given), ["pass"], Limits(seconds=2, memory=256 * 2**20))
    assert ran.passed == 0
    assert secret.read_text() == "key"


@needs_sandbox
@pytest.mark.slow
@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)"])
def test_code_that_does_not_end_is_ended(code: str) -> None:
    start = time.perf_counter()
    assert run_tests(code, ["pass"], Limits(seconds=1)).passed == 0
    assert time.perf_counter() - start < 20


@needs_sandbox
def test_what_a_program_needs_is_there() -> None:
    code = "import math, random, re, json, collections, heapq, datetime\nopen('/tmp/x', 'w').write('x')"
    assert run_tests(code, ["assert math.sqrt(4) == 2", "assert open('/tmp/x').read() == 'x'"], Limits()).passed == 2
    assert run_tests("import os", ["assert not os.path.exists('/tmp/x')"], Limits()).passed == 1


@pytest.mark.parametrize("given", [[], "", [3], [" "], None])
def test_a_row_without_tests_is_named(judge: Judge, given: object) -> None:
    with pytest.raises(MetricError, match=r"column 'tests' holds no tests.*example: "):
        judge("code", RIGHT, tests=given)


def test_without_a_sandbox_nothing_is_run_and_the_reason_is_said(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox.unavailable.cache_clear()
    try:
        with pytest.raises(MetricError, match=r"needs Linux and bubblewrap, .*apt-get install bubblewrap"):
            judge("code", RIGHT, tests=TESTS)
    finally:
        sandbox.unavailable.cache_clear()


def test_a_sandbox_that_does_not_start_says_why(judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    sandbox.unavailable.cache_clear()
    try:
        with pytest.raises(MetricError, match="does not start, so no code is run: bwrap: No permissions"):
            judge("code", RIGHT, tests=TESTS)
    finally:
        sandbox.unavailable.cache_clear()


@needs_sandbox
@pytest.mark.slow
@pytest.mark.skipif(not MBPP.is_dir(), reason=f"needs the rows of MBPP in {MBPP}")
def test_gold_programs_pass_and_those_of_other_rows_do_not() -> None:
    rows, metric = FolderSource(folder=MBPP.parent), {"name": "code", "setup": "setup"}
    task = Task.model_validate({"name": "mbpp", "rows": rows, "metric": metric, "test": 40})
    targets = [example.target for example in task.test_examples]
    assert all(judged.strict for judged in task.judge(targets, task.test_examples))
    assert not any(judged.strict for judged in task.judge([*targets[1:], targets[0]], task.test_examples))
