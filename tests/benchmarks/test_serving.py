"""The arithmetic of the serving benchmarks: paired differences, growth, verdicts and counts; no server."""

import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")
pytest.importorskip("prometheus_client")

from interval import Interval
from serving.client import Answer, _said, read_metrics
from serving.extproc import FORMS, WAYS
from serving.extproc import summary as extproc_summary
from serving.fault_injection import slowed
from serving.load import seen_status
from serving.middleware_alone import Alone
from serving.overhead import summary as overhead_summary
from serving.paired import Difference, Growth, over_rounds, percent_more
from serving.production import SETTINGS, Timed, processor_clock
from serving.production import summary as production_summary
from serving.replacement import SEEN_WITHIN_S
from serving.replacement import summary as replacement_summary
from serving.sessions import TURNS, Turn, scripted
from serving.sessions import summary as sessions_summary
from serving.stand import topic_profile
from serving.throughput import alike
from serving.topics import TOPICS
from serving.truth import Truth, Verdict, unmistakable
from traitroute.adapters import ServerError
from traitroute.router import Router

SAID = {("code", "p"): "one", ("cook", "p"): "two", ("base", "p"): "three"}


@pytest.fixture(scope="module")
def router() -> Router:
    """A router of the stand's profile, which takes seconds to fit."""
    return Router(topic_profile())


def test_a_difference_is_found_through_noise_that_pairs_share() -> None:
    rng = np.random.default_rng(0)
    beside = rng.uniform(50, 500, 300)
    found = Difference.of(beside + rng.normal(2, 1, 300), beside, rng)
    assert found.median_ms.low < 2 < found.median_ms.high
    assert found.median_ms.high - found.median_ms.low < 0.6
    assert found.percent.value == pytest.approx(100 * found.median_ms.value / np.median(beside))


def test_a_server_is_compared_where_one_adapter_answered_there_and_in_the_first() -> None:
    def row(*ms: float, **of_all: str) -> list[Timed]:
        """`ms` of the first server, of the one with all of it, and of the others."""
        servers = [Timed(ms[-1], ms[-1] / 10, "cook", "auto") for _ in SETTINGS]
        servers[0] = Timed(ms[0], ms[0] / 10, "cook", "auto")
        servers[-1] = Timed(ms[1], ms[1] / 10, **{"adapter": "cook", "arm": "auto"} | of_all)
        return servers

    rows = [row(10, 12, 11), row(20, 24, 22), row(1, 900, 1.1, adapter="base", arm="control"), row(1, 900, 1.1, arm="")]
    found = production_summary([rows, rows], np.ones((2, len(SETTINGS))))
    assert (found.costs["all"].compared, found.costs["off again"].compared) == (4, 8)
    assert found.costs["all"].more_percent.value == pytest.approx(20)
    assert found.costs["all"].more_cpu_ms.value == pytest.approx(0.3)
    assert found.costs["all"].more_cpu_percent.value == pytest.approx(20)
    assert found.costs["off again"].more_percent.value == pytest.approx(10)
    assert (found.arms, found.fell_back) == ({"auto": 4, "control": 2, "fallback": 2}, 2)


def test_what_is_added_behind_envoy_is_told_beside_envoy_alone() -> None:
    rng = np.random.default_rng(0)
    times = rng.uniform(10, 11, (40, len(FORMS), len(WAYS), 1)) * (0.5, 1.0, 0.1)
    alone, auto = (list(WAYS).index(way) for way in ("Envoy alone", "BUFFERED, auto"))
    times[:, 1, auto] = times[:, 1, alone] + (5.0, 10.5, 2.0)
    found = extproc_summary(times, 3, rng)
    large = found.costs["JSON of 1 MB"]["BUFFERED, auto"]
    assert large.more.median_ms.value == pytest.approx(10.5)
    assert large.first_more.median_ms.value == pytest.approx(5.0)
    assert large.times.value == pytest.approx(2.0, abs=0.05)
    assert large.cpu_ms == pytest.approx(3.05, abs=0.05)
    assert abs(found.costs["JSON"]["BUFFERED, auto"].times.value - 1) < 0.05
    assert (found.texts, found.doubts) == (40, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such clock")
def test_the_processor_time_of_another_process_is_told() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            clock = processor_clock(busy.pid)
            before, deadline = time.clock_gettime(clock), time.monotonic() + 60
            while time.clock_gettime(clock) < before + 0.1:
                assert time.monotonic() < deadline
        finally:
            busy.kill()


def test_rounds_that_differ_widen_the_interval() -> None:
    assert over_rounds([1.0, 1.0, 1.0]) == Interval(1.0, 1.0, 1.0)
    found = over_rounds([0.0, 1.0, 2.0])
    assert (found.low, found.high) == (pytest.approx(1 - 2.484, abs=0.001), pytest.approx(1 + 2.484, abs=0.001))


def test_one_pause_moves_the_mean_and_not_the_median() -> None:
    beside = np.full(101, 100.0)
    times = beside + 1
    times[0] += 10_000
    found = Difference.of(times, beside, np.random.default_rng(0))
    assert found.median_ms.value == 1
    assert found.mean_ms.value > 90


@pytest.mark.slow
def test_intervals_cover_at_their_rate() -> None:
    rng = np.random.default_rng(1)
    found = [Difference.of(rng.normal(10, 3, 60), np.full(60, 10.0), rng) for _ in range(150)]
    covered = np.mean([d.mean_ms.low <= 0 <= d.mean_ms.high for d in found])
    assert 0.88 < covered <= 1


def test_a_loss_of_throughput_is_found_through_noise_that_rounds_share() -> None:
    rng = np.random.default_rng(0)
    beside = rng.uniform(2, 4, 12)
    found = percent_more(0.97 * beside * rng.normal(1, 0.005, 12), beside, rng)
    assert found.low < -3 < found.high < 0
    control = percent_more(beside * rng.normal(1, 0.005, 12), beside, rng)
    assert control.low < 0 < control.high


def test_the_texts_of_a_throughput_run_are_all_routed_to_one_adapter(router: Router) -> None:
    adapter, texts = alike(router, TOPICS, 20, np.random.default_rng(0))
    assert len(texts) == 20
    assert {router.route(text).adapter for text in texts} == {adapter}


def test_too_few_texts_for_one_adapter_are_told(router: Router) -> None:
    only_base = Router(router.profile, z=1000)
    with pytest.raises(ServerError, match="ask for fewer than 20"):
        alike(only_base, TOPICS, 20, np.random.default_rng(0))


def test_growth_is_of_the_second_half() -> None:
    seconds = np.arange(0, 121, 2, dtype=np.float64)
    mb = np.where(seconds < 60, 100 + seconds, 160 + (seconds - 60) / 60).astype(np.float64)
    found = Growth.of(seconds, mb)
    assert (found.middle_mb, found.end_mb) == (160, 161)
    assert found.mb_a_minute == pytest.approx(1)


def test_the_control_and_auto_are_both_set_beside_the_first_name() -> None:
    times = np.tile([100.0, 101.0, 103.0], (20, 1))
    found = overhead_summary(times, 4, 0.5, Alone(0, 0, 0), np.random.default_rng(0))
    assert (found.control.median_ms.value, found.auto.median_ms.value) == (1, 3)
    assert found.auto.percent.value == 3


def test_hits_are_counted_after_the_first_turn() -> None:
    sticky = [Turn("sticky", 0, n, "code", 10, 100, 90 if n else 80) for n in range(TURNS)]
    anew = [Turn("decided anew", 0, n, f"{n}", 50, 100, 0) for n in range(TURNS)]
    found = sessions_summary([*anew, *sticky], np.random.default_rng(0))
    assert [a.hit_percent for a in found.arms] == [90, 0]
    assert [a.switches for a in found.arms] == [0, TURNS - 1]
    assert found.second_turn.median_ms.value == 40


def test_a_script_turns_to_another_topic_each_time(router: Router) -> None:
    script = scripted(TOPICS, np.random.default_rng(0))
    assert [m["role"] for m in script] == ["user", "assistant"] * (TURNS - 1) + ["user"]
    routed = [router.route(m["content"]).adapter for m in script[::2]]
    assert len(set(routed)) == TURNS


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        ({"asked": "code", "model": "code", "text": "one"}, Verdict.RIGHT),
        ({"asked": "code", "model": "code", "text": "two"}, Verdict.WRONG_ADAPTER),
        ({"asked": "code", "model": "code", "text": "four"}, Verdict.UNLIKE_ANY),
        ({"asked": "code", "model": "cook", "text": "one"}, Verdict.MISNAMED),
        ({"asked": "auto", "adapter": "cook", "model": "cook", "text": "two"}, Verdict.RIGHT),
        ({"asked": "auto", "adapter": "cook", "model": "code", "text": "two"}, Verdict.MISNAMED),
        ({"asked": "auto", "adapter": "base", "model": "tiny", "text": "three"}, Verdict.RIGHT),
        ({"asked": "code", "model": "code", "text": "on", "cut": "x"}, Verdict.NO_ANSWER),
    ],
)
def test_an_answer_is_judged_by_what_it_says(told: dict[str, Any], verdict: Verdict) -> None:
    answer = Answer(prompt="p", began=0, status=200, **told)
    assert Truth(SAID, "tiny").judge(answer) is verdict


@pytest.mark.parametrize(
    ("began", "text", "wrong"),
    [
        (0, "one", 0),
        (0, "newer", 1),
        (10, "one", 0),
        (10, "newer", 0),
        (10 + SEEN_WITHIN_S + 1, "newer", 0),
        (10 + SEEN_WITHIN_S + 1, "one", 1),
        (10 + SEEN_WITHIN_S + 1, "two", 1),
    ],
)
def test_weights_are_judged_by_when_they_were_due(began: float, text: str, wrong: int) -> None:
    told: dict[str, Any] = {"prompt": "p", "status": 200, "seconds": 0.1}
    answer = Answer(asked="code", model="code", began=began, text=text, **told)
    other = Answer(asked="cook", model="cook", began=began, text="two", **told)
    found = replacement_summary([answer, other], Truth(SAID, "tiny"), "code", {"p": "newer"}, 10, 1, SEEN_WITHIN_S)
    assert found.wrong == wrong


def test_prompts_that_two_models_answer_alike_are_dropped() -> None:
    alike = {("code", "q"): "same", ("cook", "q"): "same", ("base", "q"): "other"}
    assert unmistakable(SAID | alike, "tiny").prompts == ["p"]


def test_a_stream_without_its_own_end_is_cut() -> None:
    event = 'data: {"model": "code", "choices": [{"delta": {"content": "a"}, "finish_reason": %s}]}'
    whole = _said([event % "null", event % '"length"', "data: [DONE]"])
    assert (whole["model"], whole["text"], whole["cut"]) == ("code", "aa", "")
    assert "abort" in _said([event % '"abort"', "data: [DONE]"])["cut"]
    assert "nothing" in _said([event % "null"])["cut"]
    assert "no answer" in seen_status(Answer("code", "p", 0, cut="ConnectError"))


def test_metrics_are_summed_over_labels() -> None:
    text = '# TYPE a counter\na_total{x="1"} 2\na_total{x="2"} 3\n'
    assert read_metrics(text)["a_total"] == 5


def test_a_slowed_profile_decides_alike(router: Router) -> None:
    slow = Router(slowed(router.profile, 50))
    for rows in TOPICS.values():
        assert slow.route(rows[0]).adapter == router.route(rows[0]).adapter
