"""One holder at a time, between processes, and none once it is dead."""

import subprocess
import sys
from pathlib import Path

import pytest
from traitroute.adapters import Location

locks = pytest.importorskip("traitroute.profiling.jobs.locks", reason="needs the extra worker")
on_both = pytest.mark.parametrize("place", ["sqlite", "postgresql"], indirect=True)

HOLD = """
import sys, time
from traitroute.adapters import Location
from traitroute.profiling.jobs.locks import open_locks
held = open_locks(Location.parse(sys.argv[1])).hold("a")
print("held" if held else "not held", flush=True)
time.sleep(60)
"""

WAIT = """
import fcntl, sys, time
with open(sys.argv[1]) as file:
    print("opened", flush=True)
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(60)
"""


@on_both
def test_a_lock_that_is_held_is_not_given_again_until_it_is_released(place: str) -> None:
    here = locks.open_locks(Location.parse(place))
    held = here.hold("a")
    assert held is not None and held.renew()
    assert here.hold("a") is None
    other = here.hold("b")
    assert other is not None
    other.release()
    held.release()
    again = here.hold("a")
    assert again is not None
    again.release()


@on_both
def test_the_lock_of_a_killed_process_is_free(place: str) -> None:
    here = locks.open_locks(Location.parse(place))
    holder = subprocess.Popen([sys.executable, "-c", HOLD, place], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert here.hold("a") is None
    holder.kill()
    holder.communicate()
    held = None
    for _ in range(100):
        held = held or here.hold("a")
    assert held is not None
    held.release()


def test_who_opened_the_file_before_a_release_and_who_opens_it_after_do_not_both_hold(
    tmp_path: Path,
) -> None:
    here = locks.open_locks(Location.parse(tmp_path / "registry.db"))
    held = here.hold("a")
    assert held is not None
    file = next((tmp_path / "registry.locks").iterdir())
    waiting = subprocess.Popen([sys.executable, "-c", WAIT, file], stdout=subprocess.PIPE, text=True)
    try:
        assert waiting.stdout is not None and waiting.stdout.readline() == "opened\n"
        held.release()
        assert waiting.stdout.readline() == "held\n"
        assert here.hold("a") is None
    finally:
        waiting.kill()
        waiting.communicate()


@on_both
def test_a_lock_is_waited_for_by_one_at_a_time(place: str) -> None:
    here = locks.open_locks(Location.parse(place))
    with here.wait("a"), here.wait("b"):
        pass
    with here.wait("a"):
        pass


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_lock_is_got_back_after_the_database_was_away(place: str, postgres) -> None:
    held = locks.open_locks(Location.parse(place)).hold("a")
    assert held is not None
    postgres.kill()
    assert not held.renew()
    postgres.start()
    assert held.renew()
    held.release()
