"""A judge, stood in for by servers whose bias is known, which the report must expose."""

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from traitroute.adapters import MetricError, Registry, SuiteError
from traitroute.profiling import Example, Judgement, measure
from traitroute.profiling.tasks.metrics import read_metric
from traitroute.profiling.tasks.metrics.judge import Judge, Pair, kept_pairs
from traitroute.profiling.tasks.metrics.judge_report import JudgeReport, agreement, read_labels
from traitroute.profiling.tasks.task import data_warnings

from ...conftest import BASE, SkilledEngine, adapter, task
from .conftest import a_task

pytest.importorskip("httpx", reason="needs the extra: pip install 'traitroute[worker]'")

KEY = "sk-very-secret"
Decide = Callable[[str, str], str]
SHOWN = re.compile(r"\[Answer A\]\n(.*?)\n\n\[Answer B\]\n(.*?)\n\n\[End\]", re.DOTALL)


def fair(first: str, second: str) -> str:
    """Prefers the answer that says "good"."""
    if ("good" in first) == ("good" in second):
        return "[[tie]]"
    return "[[A]]" if "good" in first else "[[B]]"


BIASED: dict[str, Decide] = {
    "fair": fair,
    "first": lambda first, second: "[[A]]",
    "last": lambda first, second: "I prefer [[B]].",
    "longer": lambda first, second: "[[A]]" if len(first) > len(second) else "[[B]]",
    "nonsense": lambda first, second: "Both have their merits.",
}


@dataclass
class StandIn:
    """A judge that decides by a rule, and counts what it is asked."""

    url: str = ""
    decide: Decide = fair
    status: int = 200
    fails_from: int = 10**9
    longest: int = 10**9
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    """A judge on a port of its own, and a cache of its own."""
    monkeypatch.setenv("TRAITROUTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JUDGE_KEY", KEY)
    judge = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            judge.asked.append(body)
            judge.keys.add(self.headers["authorization"])
            status = 401 if len(judge.asked) > judge.fails_from else judge.status
            status = status if self.path == "/v1/chat/completions" else 404
            status = 400 if len(body["messages"][0]["content"]) > judge.longest else status
            said = judge.decide(*SHOWN.findall(body["messages"][0]["content"])[-1]) if status == 200 else ""
            reply: dict[str, Any] = {"model": "dated", "choices": [{"message": {"content": said}}]}
            reply["usage"] = {"prompt_tokens": 100, "completion_tokens": 3}
            if status != 200:
                reply = {"error": {"message": f"no: {self.headers['authorization']}"}}
            data = json.dumps({} if body["model"] == "mute" else reply).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield judge
    server.shutdown()
    server.server_close()
    thread.join()


def metric(stand_in: StandIn, **changes: Any) -> dict[str, Any]:
    settings = {"model": "stand-in", "url": stand_in.url, "api_key_env": "JUDGE_KEY", "patience_s": 1}
    return {"name": "judge", **settings, **changes}


def judged(stand_in: StandIn, outputs: Sequence[str], base: Sequence[str], **changes: Any) -> list[Judgement]:
    examples = [Example(prompt=f"Request {i}?", target="", answer="") for i in range(len(outputs))]
    return a_task(metric(stand_in, **changes)).judge(outputs, examples, base)


def pairs(stand_in: StandIn, **changes: Any) -> list[Pair]:
    made = read_metric(metric(stand_in, **changes))
    assert isinstance(made, Judge)
    return kept_pairs(made.file)


def random_pairs(stand_in: StandIn, decide: Decide) -> JudgeReport:
    """The report on 40 pairs, half of them won by the answer, of lengths that have nothing to do with it."""
    stand_in.decide = decide
    words = [("good", "poor"), ("poor", "good")]
    # Four in a row have every combination of which is good and which is longer.
    texts = [
        (f"{i} {words[i % 2][0]}{'x' * (i % 4 < 2)}", f"{i} {words[i % 2][1]}{'x' * (i % 4 > 1)}") for i in range(40)
    ]
    with suppress(MetricError):
        judged(stand_in, *zip(*texts, strict=True))
    return JudgeReport.of(pairs(stand_in))


def test_score_is_of_wins_and_losses_in_both_orders(stand_in: StandIn) -> None:
    won, lost, tied = judged(stand_in, ["good", "bad", "so"], ["bad", "good", "as so"])
    assert [won.score, lost.score, tied.score] == [1, 0, 0.5]
    assert [(j.strict, j.lenient) for j in (won, lost, tied)] == [(True, True), (False, False), (False, True)]
    assert stand_in.keys == {f"Bearer {KEY}"}
    assert {(body["model"], body["temperature"]) for body in stand_in.asked} == {("stand-in", 0)}


def test_what_base_writes_ties_with_itself_unasked(stand_in: StandIn) -> None:
    alone = a_task(metric(stand_in)).judge(["anything"], [Example(prompt="?", target="", answer="")])
    assert [j.score for j in (*alone, *judged(stand_in, ["good "], ["good"]))] == [0.5, 0.5]
    assert stand_in.asked == []


def test_nothing_is_asked_twice(stand_in: StandIn) -> None:
    first = judged(stand_in, ["good", "bad", "good"], ["bad", "good", "bad"])
    assert len(stand_in.asked) == 6
    assert judged(stand_in, ["good", "bad", "good"], ["bad", "good", "bad"]) == first
    assert len(stand_in.asked) == 6
    judged(stand_in, ["good"], ["bad"], model="another")
    assert len(stand_in.asked) == 8


@pytest.mark.parametrize(
    ("bias", "contradictory", "warned"),
    [
        ("fair", 0, []),
        ("first", 40, ["answer shown first: what is shown first wins 100% of 80", "order decides 40 of 40"]),
        ("last", 40, ["answer shown last: what is shown first wins 0% of 80", "order decides 40 of 40"]),
        ("longer", 0, ["leans towards the longer answer: the longer one wins 100%"]),
    ],
)
def test_the_report_exposes_a_bias(stand_in: StandIn, bias: str, contradictory: int, warned: list[str]) -> None:
    report = random_pairs(stand_in, BIASED[bias])
    assert (report.pairs, report.contradictory) == (40, contradictory)
    assert len(report.warnings) == len(warned)
    assert all(part in told for part, told in zip(warned, report.warnings, strict=True))
    assert report.tokens == (8_000, 240)


def test_nonsense_is_told_and_asked_again(stand_in: StandIn) -> None:
    assert random_pairs(stand_in, BIASED["nonsense"]).unreadable == 80
    with pytest.raises(MetricError, match=r"2 of 2 replies of the judge 'stand-in' end in none of \[\[A\]\]"):
        judged(stand_in, ["good"], ["bad"])
    stand_in.decide = fair
    assert judged(stand_in, ["good"], ["bad"])[0].score == 1


def test_a_refusal_keeps_what_was_judged_and_hides_the_key(stand_in: StandIn) -> None:
    stand_in.fails_from = 4
    with pytest.raises(MetricError, match=r"task t, metric \"judge\": the judge 'stand-in' refuses: .*401") as caught:
        judged(stand_in, ["good 1", "good 2", "good 3"], ["bad"] * 3, concurrency=1)
    assert KEY not in str(caught.value)
    assert len(pairs(stand_in)) == 2
    stand_in.fails_from = 10**9
    judged(stand_in, ["good 1", "good 2", "good 3"], ["bad"] * 3)
    assert len(pairs(stand_in)) == 3


def test_a_pair_too_long_for_the_judge_is_a_tie_and_the_others_are_judged(stand_in: StandIn) -> None:
    stand_in.longest = 1_000
    found = judged(stand_in, ["good", "good " * 300, "bad"], ["bad", "bad", "good"])
    assert [each.score for each in found] == [1, 0.5, 0]
    assert JudgeReport.of(pairs(stand_in)).unreadable == 2
    with pytest.raises(MetricError, match=r"2 of 2 replies .* or the pair was refused, maybe for its length") as caught:
        judged(stand_in, ["good " * 300], ["bad"])
    assert KEY not in str(caught.value)


def test_a_judge_that_is_away_is_named(stand_in: StandIn) -> None:
    with pytest.raises(MetricError, match="the judge 'stand-in' does not answer: "):
        judged(stand_in, ["good"] * 50, ["bad"] * 50, url="http://127.0.0.1:9", patience_s=0.2)


def test_a_judge_is_asked_once_before_anything_is_measured(stand_in: StandIn) -> None:
    tasks = [task(name, data, metric=metric(stand_in)) for name, data in (("a", "sentiment2"), ("b", "paraphrase"))]
    data_warnings(tasks)
    assert len(stand_in.asked) == 1
    assert tasks[0].test_examples[0].prompt in stand_in.asked[0]["messages"][0]["content"]
    for changes, said in (
        ({"url": "http://127.0.0.1:9", "patience_s": 0.2}, "does not answer: .* nothing was measured: give the url"),
        ({"url": stand_in.url.replace("/v1", "/elsewhere")}, "refuses: .*404"),
        ({"model": "mute"}, "answers with {}, which is no chat completion"),
    ):
        with pytest.raises(MetricError, match=f'task a, metric "judge": the judge .* {said}') as caught:
            data_warnings([task("a", "sentiment2", metric=metric(stand_in, **changes))])
        assert KEY not in str(caught.value)


def test_a_missing_key_is_told_before_anything_is_asked(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(MetricError, match="environment variable JUDGE_KEY is not set"):
        a_task(metric(stand_in)).judge(["x"], [Example(prompt="?", target="", answer="")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rubric": "{{ first }} or {{ last }}"}, "it asks for 'last'"),
        ({"rubric": "{{ first }}"}, "does not show the judge both"),
        ({"rubric": "{{ first"}, "not valid Jinja2"),
        ({"url": "localhost"}, "not the address of a server"),
        ({"url": f"https://user:{KEY}@host"}, "not the address of a server"),
        ({"model": ""}, "model: String should have at least 1 character"),
    ],
)
def test_settings_are_checked_as_the_suite_is_read(stand_in: StandIn, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        a_task(metric(stand_in, **changes))


def test_who_judges_and_how_is_part_of_the_rules_and_where_is_not(stand_in: StandIn) -> None:
    rules = read_metric(metric(stand_in)).rules
    assert read_metric(metric(stand_in, url="http://elsewhere", concurrency=9)).rules == rules
    rubric = "{{ first }}{{ second }}{{ row.tone }}"
    for change in ({"model": "another"}, {"rubric": rubric}, {"body": {"seed": 1}}):
        assert read_metric(metric(stand_in, **change)).rules != rules


def test_the_file_of_verdicts_holds_no_texts_and_bears_a_cut(stand_in: StandIn) -> None:
    judged(stand_in, ["good words"], ["bad words"])
    made = read_metric(metric(stand_in))
    assert isinstance(made, Judge)
    assert "words" not in made.file.read_text()
    assert KEY not in made.file.read_text()
    made.file.write_text(made.file.read_text() + '{"digest": "x", "ta')
    assert len(kept_pairs(made.file)) == 1


@pytest.mark.parametrize(("decide", "kappa"), [("fair", 1.0), ("first", 0.0)])
def test_agreement_with_people_is_told_as_kappa(stand_in: StandIn, tmp_path: Path, decide: str, kappa: float) -> None:
    stand_in.decide = BIASED[decide]
    rows = [("good", "bad", "win"), ("bad 2", "good 2", "loss"), ("a", "b", "tie"), ("good 3", "bad", "win")]
    file = tmp_path / "labels.jsonl"
    lines = [{"prompt": "?", "output": o, "base_output": b, "label": label} for o, b, label in rows]
    file.write_text("\n".join(map(json.dumps, lines)))
    made = read_metric(metric(stand_in))
    assert isinstance(made, Judge)
    agreed = agreement(made, read_labels(file))
    assert agreed.kappa == pytest.approx(kappa)
    assert agreed.same == (4 if decide == "fair" else 1)


@pytest.mark.parametrize(
    "line", ['{"prompt": "?"}', '{"prompt": 1, "output": "", "base_output": "", "label": "win"}', "x"]
)
def test_labels_that_are_none_are_named_with_their_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(line)
    with pytest.raises(SuiteError, match=r"labels\.jsonl, line 1"):
        read_labels(file)


def test_a_judge_scores_adapters_against_base_in_a_profile(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.decide = lambda first, second: fair(
        *(t.replace("none of it", "bad").replace("positive", "good") for t in (first, second))
    )
    mood = task("mood", "sentiment2", metric=metric(stand_in), test=20)
    engine = SkilledEngine([mood])
    with Registry.create(tmp_path / "registry.db") as registry:
        base, one = measure(engine, registry, BASE, [adapter("one", "1")], [mood])
        asked = len(stand_in.asked)
        measure(engine, registry, BASE, [adapter("one", "1")], [mood])
    assert set(base.outcomes.score) == {0.5}
    assert one.outcomes.score.mean() > 0.6
    assert len(stand_in.asked) == asked > 0
