"""`traitroute lift` says what the control group shows, or what is missing for that."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traitroute.adapters import Feedback, FeedbackSource, Registry
from traitroute.serving.profile_snapshot import DecisionToken, signing_key

Run = Callable[..., Any]
COUNT = 3000


@pytest.fixture
def month(made_month: Path, tmp_path: Path) -> Path:
    """A registry of this test's own."""
    path = tmp_path / "registry.db"
    path.write_bytes(made_month.read_bytes())
    return path


@pytest.fixture(scope="module")
def made_month(profiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A month in which coder gains, and cook surely harms; every tenth conversation was held back."""
    path = tmp_path_factory.mktemp("month") / "registry.db"
    path.write_bytes(profiled.read_bytes())
    rng = np.random.default_rng(0)
    begun = datetime.now(UTC) - timedelta(minutes=14 * COUNT + 120)
    with Registry.open(path) as registry:
        profile = registry.latest_profile()
        assert profile is not None
        rows = []
        for i in range(COUNT):
            policy = ("coder", "cook", None)[i % 3]
            held_back = bool(rng.random() < 0.1)
            adapter = None if held_back else policy
            score = {"coder": 0.8, "cook": 0.05, None: 0.5}[adapter]
            made = begun + timedelta(minutes=14 * i)
            token = DecisionToken(
                adapter=adapter,
                gain=0.3,
                level=0.5,
                version=profile.version,
                made=int(made.timestamp()),
                propensity=1.0 if policy is None else 0.1 if held_back else 0.9,
                policy=policy,
                arm="control" if held_back else "auto",
                kind=policy or "critic",
                conversation=f"talk {i}",
            )
            rows.append(
                Feedback(
                    token=token.sign(signing_key(profile)),
                    source=FeedbackSource.CHECKER if i % 30 == 3 else FeedbackSource.USER,
                    adapter=adapter,
                    predicted_gain=0.3,
                    profile_version=profile.version,
                    reward=float(rng.random() < score),
                    created_at=made,
                    rewarded_at=made + timedelta(seconds=40),
                )
            )
        registry.put_feedback(*rows)
    return path


def test_the_gain_is_said_in_words_and_a_harmed_kind_is_named(run: Run, month: Path) -> None:
    told = run("lift", "--registry", month).stdout
    assert "2,900 conversations with an outcome by user" in told
    [coder] = [line for line in told.splitlines() if "coder" in line]
    assert coder.split("│")[-2].strip() == "better"
    [cook] = [line for line in told.splitlines() if "cook " in line]
    assert cook.split("│")[-2].strip() == "worse"
    [critic] = [line for line in told.splitlines() if "critic" in line]
    assert "base itself" in critic
    assert "in four cases of five" in told


@pytest.mark.parametrize(("by", "words"), [("adapter", "adapter chosen"), ("day", "gain of the day")])
def test_it_splits_by_adapter_and_by_day(run: Run, month: Path, by: str, words: str) -> None:
    assert words in run("lift", "--registry", month, "--by", by).stdout


def test_json_holds_the_whole_report(run: Run, month: Path) -> None:
    told = json.loads(run("lift", "--registry", month, "--json").stdout)
    assert {row["name"] for row in told["adapters"]} == {"coder", "cook"}
    assert told["total"]["conversations"] == 2900
    assert told["holdback"] == 0.1
    assert len(told["days"]) in (30, 31)


def test_since_days_and_source_count_fewer(run: Run, month: Path) -> None:
    def counted(*options: Any) -> int:
        return json.loads(run("lift", "--registry", month, "--json", *options).stdout)["total"]["conversations"]

    day = f"{datetime.now(UTC) - timedelta(days=10):%Y-%m-%d}"
    assert 900 < counted("--since", day) < 1100
    assert 450 < counted("--days", 5) < 550
    assert counted("--source", "checker") == 100


def test_without_a_control_group_or_feedback_it_says_what_to_set(run: Run, profiled: Path, month: Path) -> None:
    told = run("lift", "--registry", profiled).stdout
    assert "is not known (0 conversations" in told
    assert "send POST /v1/feedback" in " ".join(told.split())
    with Registry.open(month) as registry:
        registry.forget_feedback(before=datetime.now(UTC))
        token = DecisionToken("coder", 0.3, 0.5, 1, conversation="x").sign(b"key")
        registry.put_feedback(Feedback(token=token, adapter="coder", predicted_gain=0.3, reward=1.0))
        registry.put_feedback(Feedback(token="another", adapter="coder", predicted_gain=0.3, reward=1.0))
    told = " ".join(run("lift", "--registry", month).stdout.split())
    assert "2 outcomes were reported, but no conversation was drawn: set TRAITROUTE_HOLDBACK=0.02" in told


def test_bad_options_end_in_one_line(run: Run, refusal: Callable[..., str], month: Path, tmp_path: Path) -> None:
    assert "give one of them" in refusal("lift", "--registry", month, "--since", "2026-01-01", "--days", 3)
    assert "lies ahead of now" in refusal("lift", "--registry", month, "--since", "2199-01-01")
    assert "nowhere.db" in refusal("lift", "--registry", tmp_path / "nowhere.db")
    assert run("lift", "--registry", month, "--since", "soon").returncode == 2
