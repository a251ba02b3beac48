"""`traitroute replay`: which decisions of a log another profile version makes otherwise, and what bad input is told."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import DemandWindow, Registry
from traitroute.router import RoutingProfile

Run = Callable[..., Any]
CODE, EGGS = "fix this compiler error a", "bake bread without yeast a"


def log_of(path: Path, *entries: Any) -> Path:
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def asks(text: str, **beside: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **beside}


@pytest.fixture
def replayed(run: Run, two_versions: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Replay these entries of a log as version 2 instead of 1, and read the JSON."""

    def command(*entries: Any, options: tuple[Any, ...] = ()) -> dict[str, Any]:
        log = log_of(tmp_path / "asked.jsonl", *entries)
        done = run("replay", log, "--registry", two_versions, "--json", *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return command


def test_decisions_that_change_are_counted_by_pair_and_kind(replayed: Run) -> None:
    found = replayed(asks(CODE), asks(EGGS), {"input": CODE, "target": "x"}, {"body": asks(EGGS)})
    assert (found["before"], found["after"]) == ("version 1", "version 2")
    assert (found["compared"], found["changed"], found["share"]) == (4, 2, 0.5)
    (move,) = found["moves"]
    assert (move["from"], move["to"], move["requests"]) == ("coder", "fresh", 2)
    by_kind = {kind["kind"]: (kind["requests"], kind["changed"]) for kind in found["kinds"]}
    assert by_kind == {"coder": (2, 2), "cook": (2, 0)}


def test_a_change_is_valued_by_either_version_where_it_knows_both_adapters(replayed: Run) -> None:
    found = replayed(*[asks(CODE)] * 3, *[asks(EGGS)] * 3)
    gained = found["expected_gain"]["by_after"]
    assert gained["mean"] > 0 and gained["requests"] == 6
    assert gained["interval"][0] < gained["mean"] < gained["interval"][1]
    # Version 1 has never heard of the adapter that version 2 chooses for half of them.
    assert found["expected_gain"]["by_before"] == {"mean": 0.0, "interval": None, "requests": 3}


def test_examples_are_digests_and_nothing_shows_the_text(run: Run, two_versions: Path, tmp_path: Path) -> None:
    log = log_of(tmp_path / "asked.jsonl", asks(EGGS), asks(CODE))
    for options in ((), ("--json",)):
        shown = run("replay", log, "--registry", two_versions, *options).stdout
        assert hashlib.sha256(CODE.encode()).hexdigest()[:16] in shown
        assert "compiler" not in shown


def test_constraints_of_a_request_are_honoured(replayed: Run) -> None:
    denied = asks(CODE, traitroute={"deny": ["fresh"]})
    in_headers = {"body": asks(CODE), "headers": {"X-TraitRoute-Allow": "coder, cook"}}
    sure = asks(CODE, traitroute={"min_gain": 1.0})
    assert replayed(denied, in_headers, sure)["changed"] == 0


def test_a_session_is_decided_by_its_first_request_and_reroute_by_the_last_turn(replayed: Run) -> None:
    first, later = (asks(text, traitroute={"session": "s"}) for text in (CODE, EGGS))
    found = replayed(first, later)
    assert found["changed"] == 2
    turns = [
        {"role": "user", "content": CODE},
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": EGGS},
    ]
    assert replayed({"messages": turns}, {"messages": turns, "traitroute": {"reroute": True}})["changed"] == 1


def test_a_line_that_cannot_be_read_is_told_by_number_and_the_rest_is_decided(replayed: Run) -> None:
    unknown = asks(CODE, traitroute={"allow": ["coder2"]})
    found = replayed(asks(CODE), "{", unknown, {"messages": [3]}, {"level": "info"}, asks("..."), "[1", asks(EGGS))
    assert found["compared"] == 2 and found["no_text"] == 1
    assert [fault["line"] for fault in found["faults"]] == [2, 3, 4, 7]
    assert found["unread"] == 4
    assert "which is no adapter of this server; did you mean 'coder'?" in found["faults"][1]["reason"]


def test_what_the_log_says_answered_is_compared_with(replayed: Run) -> None:
    answered = {"response": {"body": {"model": "coder", "choices": []}}}
    entries = (
        {"body": asks(CODE), **answered},
        asks(EGGS) | {"model": "cook"},
        asks(CODE) | {"model": "our-base"},
        asks(CODE) | {"model": "gpt-x"},
        asks(CODE),
    )
    found = replayed(*entries, options=("--against", "log", "--base", "our-base"))
    assert (found["compared"], found["answerer_unknown"]) == (3, 2)
    assert sorted((move["from"], move["to"]) for move in found["moves"]) == [("base", "fresh"), ("coder", "fresh")]
    assert found["expected_gain"]["by_before"] is None


def test_only_auto_leaves_other_models_out(replayed: Run) -> None:
    assert replayed(asks(CODE), asks(CODE) | {"model": "cook"}, options=("--only-auto",))["compared"] == 1


def test_too_much_change_fails(run: Run, two_versions: Path, tmp_path: Path) -> None:
    log = log_of(tmp_path / "asked.jsonl", asks(CODE), asks(EGGS))
    command = ("replay", log, "--registry", two_versions, "--fail-above")
    assert run(*command, 0.5).returncode == 0
    failed = run(*command, 0.4)
    assert failed.returncode == 1
    assert "50.00% of decisions change, more than 40.00%" in failed.stderr


def test_another_registry_is_tried(run: Run, profiled: Path, two_versions: Path, tmp_path: Path) -> None:
    log = log_of(tmp_path / "asked.jsonl", asks(CODE), asks(EGGS))
    shown = run("replay", log, "--registry", profiled, "--profile", two_versions).stdout
    assert f"version 2 of {two_versions} instead of version 1 changes 1 of 2 decisions (50.0%)" in shown


def test_kept_features_are_decided_where_their_fit_is_the_same(run: Run, two_versions: Path, refusal: Run) -> None:
    with Registry.open(two_versions) as registry:
        profile = RoutingProfile.from_bytes(registry.profile(1).data)
        features = DemandWindow.pack([profile.features.row(CODE), profile.features.row(EGGS)])
        for version in (1, 9):
            window = DemandWindow(profile_version=version, requests=50, novel=2, features=features)
            registry.put_demand_window(window)
    found = json.loads(run("replay", "--registry", two_versions, "--json").stdout)
    assert (found["compared"], found["changed"]) == (2, 1)
    assert found["kept"] == {"requests": 50, "novel": 2, "sampled": 2, "windows_of_other_fits": 1}
    shown = run("replay", "--registry", two_versions).stdout
    assert "The others cannot be decided again: nothing of them was kept" in shown
    with Registry.open(two_versions) as registry:
        other = replace(profile, features=replace(profile.features, idf=profile.features.idf + 1))
        registry.put_profile(other.to_bytes(), registry.profile(1).summary)
    assert "versions 2 and 3 were fitted apart" in refusal("replay", "--registry", two_versions)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--version", 1), "there is no version before 1 to compare with: give a LOG"),
        (("--against", "yesterday"), "--against is a version, as `traitroute profiles list` shows it, or 'log'"),
        (("--against", 9), "no profile version 9; versions: 1, 2"),
    ],
)
def test_a_comparison_with_nothing_is_refused(
    refusal: Run, two_versions: Path, tmp_path: Path, options: tuple[Any, ...], told: str
) -> None:
    log = log_of(tmp_path / "asked.jsonl", asks(CODE))
    assert told in refusal("replay", log, "--registry", two_versions, *options)


def test_a_log_without_a_request_is_refused(refusal: Run, two_versions: Path, tmp_path: Path) -> None:
    command = ("--registry", two_versions)
    assert "cannot be read: No such file" in refusal("replay", tmp_path / "none.jsonl", *command)
    log = log_of(tmp_path / "asked.jsonl", "{", asks("..."))
    told = refusal("replay", log, *command)
    assert "nothing to decide: of 2 entries 1 could not be read, 1 requests say nothing" in told
    assert "servers wrote down no request of the last" in refusal("replay", *command)


def test_a_long_log_shows_where_it_is(run: Run, two_versions: Path, tmp_path: Path) -> None:
    log = log_of(tmp_path / "asked.jsonl", *[asks(CODE)] * 300, "x" * 2**20)
    shown = run("replay", log, "--registry", two_versions).stdout
    assert "decide the log's requests: done" in shown
    assert "changes 300 of 300 decisions (100.0%)" in shown
