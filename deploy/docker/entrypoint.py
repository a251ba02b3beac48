#!/usr/bin/env python3
"""Process 1 of the containers: runs `traitroute` with the container's arguments, and ends it calmly.

vLLM drops what is under way at SIGTERM, and may hang then (docs/serving.md). So where `serve` is run, SIGTERM first
waits until no request is under way: an orchestrator that ends a pod takes it out of rotation at the same time. Only
then is the server told, and killed if it does not go. Other commands end by themselves, and are told at once. A second
SIGTERM ends the waiting. Exit code: 0 where it was asked to stop, else the command's own.

Variables: TRAITROUTE_DRAIN_S, how long requests may go on (120); TRAITROUTE_DRAIN_DELAY_S, how long the server takes
requests from those who have not heard yet (5); TRAITROUTE_DRAIN_URL, its metrics; TRAITROUTE_END_S, how long it has
to end (15). The metrics ask for a key where there are tenants: the one in TRAITROUTE_API_KEY.
"""

import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request

STOP = (signal.SIGTERM, signal.SIGINT)
UNDER_WAY = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:\{.*\})? (\S+)$", re.MULTILINE)
# A server of this machine is not behind a proxy.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main() -> int:
    """Run the command; its exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*STOP, signal.SIGCHLD))
    # A session of its own, so that all that it started can be killed with it.
    command = ["traitroute", *sys.argv[1:]]
    child = Child(os.posix_spawnp(command[0], command, os.environ, setsid=True, setsigmask=()))
    while not child.ended():
        if signal.sigwait((*STOP, signal.SIGCHLD)) in STOP:
            stop(child, drains=sys.argv[1:2] == ["serve"])
            return 0
    return child.code


class Child:
    """The command, and whatever was left to process 1 by others that ended."""

    def __init__(self, pid: int) -> None:
        self.pid, self.code = pid, 0
        self._ended = False

    def ended(self) -> bool:
        """Take leave of all processes that have ended; whether the command is among them, or was."""
        while not self._ended:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid == self.pid:
                code = os.waitstatus_to_exitcode(status)
                self._ended, self.code = True, code if code >= 0 else 128 - code
        return self._ended

    def ends_within(self, seconds: float, *, interrupted_by: tuple[signal.Signals, ...] = ()) -> bool:
        """Wait so long at most; whether it has ended, or one of the signals came."""
        until = time.monotonic() + seconds
        while not self.ended():
            left = until - time.monotonic()
            if left <= 0:
                return False
            came = signal.sigtimedwait((*interrupted_by, signal.SIGCHLD), left)
            if came is not None and came.si_signo in interrupted_by:
                return True
        return True


def stop(child: Child, *, drains: bool) -> None:
    """End the command: told at once, or when its requests are done; killed where it does not go."""
    if drains:
        drain(child)
    if not child.ended():
        os.kill(child.pid, signal.SIGTERM)
    if not child.ends_within(seconds("TRAITROUTE_END_S", 15)):
        say("it did not end in time, and is killed")
    # Also what it left behind: engines outlive a server that dies.
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.ends_within(5)


def drain(child: Child) -> None:
    """Wait until no request is under way, in bounds."""
    began, limit = time.monotonic(), seconds("TRAITROUTE_DRAIN_S", 120)
    say("told to stop: requests that are under way go on")
    pause, count = seconds("TRAITROUTE_DRAIN_DELAY_S", 5), None
    while (left := began + limit - time.monotonic()) > 0:
        if child.ends_within(min(pause, left), interrupted_by=STOP):
            return
        if (count := under_way()) == 0:
            say(f"none is under way after {time.monotonic() - began:.0f} s")
            return
        pause = 0.5
    say(f"{'an unknown number' if count is None else f'{count:.0f}'} of them did not end within {limit:.0f} s")


def under_way() -> float | None:
    """How many requests vLLM has; None where it does not say."""
    url = os.environ.get("TRAITROUTE_DRAIN_URL", "http://127.0.0.1:8000/metrics")
    key = os.environ.get("TRAITROUTE_API_KEY")
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"} if key else {})
    try:
        with DIRECT.open(request, timeout=5) as answer:
            counts = UNDER_WAY.findall(answer.read().decode())
    except urllib.error.URLError as exc:
        # Where nothing listens yet, nothing is under way.
        return 0 if isinstance(exc.reason, ConnectionRefusedError) else None
    except OSError:
        return None
    return sum(map(float, counts)) if counts else None


def seconds(variable: str, default: float) -> float:
    """A time that the environment may set."""
    return float(os.environ.get(variable) or default)


def say(text: str) -> None:
    """For the container's log."""
    print(f"entrypoint: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
