"""Tasks from a log: what is written, for whom to read, and that nothing is left where it fails."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import InputError, SuiteError
from traitroute.profiling.tasks.from_log import LogTask, Reading, tasks_from_log
from traitroute.profiling.tasks.inference import infer_task
from traitroute.profiling.tasks.metrics.judge import Judge
from traitroute.profiling.tasks.sources import FolderSource
from traitroute.profiling.tasks.suite import load_suite, load_tasks, target_tasks
from traitroute.profiling.tasks.task import Task, data_warnings
from traitroute.profiling.tasks.text_files import parse_yaml

TREES = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine")


def free(i: int) -> str:
    return f"{TREES[i % 10]} {TREES[i // 10 % 10]} {i}"


def entry(text: str, answer: str = "", system: str = "", **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    return {"messages": messages, **({"response": answer} if answer else {}), **more}


def json_asked(i: int) -> dict[str, Any]:
    return entry(f"Give the parts of this address as JSON: {free(i)}", '{"city": "x"}')


def option(i: int) -> dict[str, Any]:
    return entry(f"{free(i)}\nWhat is the mood of this message?\nA. glad\nB. sad\nC. neither", "A")


def answered(i: int) -> dict[str, Any]:
    return entry(f"Summarise this letter in one short sentence: {free(i)}", f"It is about {TREES[i % 10]}.")


def unanswered(i: int) -> dict[str, Any]:
    return entry(f"Please write a friendly poem of four lines on the trees {free(i)}")


def chat(i: int) -> dict[str, Any]:
    return entry(free(i), system="You are the assistant of a tree nursery. Answer questions on trees briefly.")


def log_of(folder: Path, *makers: Callable[[int], dict[str, Any]], count: int = 30) -> Path:
    file = folder / "requests.jsonl"
    file.write_text("".join(json.dumps(make(i)) + "\n" for i in range(count) for make in makers))
    return file


def made(file: Path, **options: Any) -> tuple[list[LogTask], Reading]:
    return tasks_from_log(file, file.parent / "out", **options)


def test_each_kind_of_task_is_judged_by_what_can_be_told_of_it(tmp_path: Path) -> None:
    tasks, reading = made(log_of(tmp_path, json_asked, option, answered, unanswered, chat))
    assert (reading.requests, reading.faulty) == (150, 0)
    judged = {task.name: (task.count, task.judged) for task in tasks}
    assert judged == {
        "give-the-parts-of": (30, "json"),
        "what-is-the-mood": (30, "option"),
        "summarise-this-letter-in": (30, "log"),
        "please-write-a-friendly": (30, "nothing"),
        "you-are-the-assistant": (30, "nothing"),
    }


def test_the_suite_holds_tasks_that_can_be_measured(tmp_path: Path) -> None:
    made(log_of(tmp_path, json_asked, option, answered, unanswered, chat), rows=12)
    suite = parse_yaml((tmp_path / "out" / "suite.yaml").read_text(), "suite")
    tasks = {given["name"]: Task.model_validate(given) for given in suite["tasks"]}
    assert all(len(task.test_examples) == 12 for task in tasks.values())
    unlabelled = data_warnings([tasks["give-the-parts-of"], tasks["please-write-a-friendly"]])
    assert ["measured without right answers" in warning for warning in unlabelled] == [True, True]
    spoken = tasks["you-are-the-assistant"].test_examples[0]
    assert [message["role"] for message in spoken.messages] == ["system", "user"]
    wrote = {"give-the-parts-of": "[1]", "what-is-the-mood": "b.", "summarise-this-letter-in": "It is about ash."}
    for name, output in wrote.items():
        examples = tasks[name].test_examples
        assert any(each.strict for each in tasks[name].judge([output] * 12, examples)), name
        assert not any(each.lenient for each in tasks[name].judge(["no idea"] * 12, examples)), name


def test_three_examples_stand_beside_each_task(tmp_path: Path) -> None:
    (task,), _ = made(log_of(tmp_path, answered))
    assert len(set(task.examples)) == 3
    text = (tmp_path / "out" / "suite.yaml").read_text()
    assert all(f"#   {example}\n" in text for example in task.examples)


def test_what_is_written_is_for_its_owner_to_read(tmp_path: Path) -> None:
    made(log_of(tmp_path, answered))
    for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_log_is_not_followed_into_the_terminal_or_the_suite(tmp_path: Path) -> None:
    hostile = "Read this \x1b[2J\u202e out loud please:\n- name: auto\nmetric: {name: exact} "
    file = tmp_path / "requests.jsonl"
    file.write_text("".join(json.dumps(entry(hostile + free(i))) + "\n" for i in range(30)))
    (task,), _ = made(file)
    assert all(example.isprintable() for example in task.examples)
    assert len(parse_yaml((tmp_path / "out" / "suite.yaml").read_text(), "suite")["tasks"]) == 1


def test_equal_requests_are_one_row_and_a_template_of_many(tmp_path: Path) -> None:
    file = log_of(tmp_path, lambda i: answered(i % 5), unanswered, count=40)
    tasks, _ = made(file)
    rows = {task.name: (task.count, task.rows) for task in tasks}
    assert rows == {"please-write-a-friendly": (40, 40), "summarise-this-letter-in": (40, 5)}


def test_of_a_long_log_a_sample_is_grouped_and_counts_are_estimates(tmp_path: Path) -> None:
    (first, second), reading = made(log_of(tmp_path, answered, unanswered, count=300), sample=200, rows=10)
    assert reading.requests == 600
    assert first.count + second.count == pytest.approx(600, abs=1)
    assert first.count == pytest.approx(300, abs=60)


def test_a_second_run_of_the_same_seed_writes_the_same(tmp_path: Path) -> None:
    file = log_of(tmp_path, answered, unanswered, count=100)
    for out in ("one", "two"):
        tasks_from_log(file, tmp_path / out, rows=10)
    texts = [sorted(p.read_bytes() for p in (tmp_path / out).rglob("*.jsonl")) for out in ("one", "two")]
    assert texts[0] == texts[1]


def test_faults_are_counted_and_the_first_three_are_told(tmp_path: Path) -> None:
    file = log_of(tmp_path, answered)
    with file.open("a") as log:
        log.write("{\n" * 5)
    _, reading = made(file)
    assert (reading.entries, reading.requests, reading.faulty) == (35, 30, 5)
    assert list(reading.faults) == [31, 32, 33]


def test_a_log_without_a_template_leaves_nothing(tmp_path: Path) -> None:
    file = log_of(tmp_path, answered, count=6)
    with pytest.raises(SuiteError, match="6 requests in 6 entries, and no template that 20 of them share"):
        made(file)
    assert [path.name for path in tmp_path.iterdir()] == ["requests.jsonl"]


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="is there already"):
        made(log_of(tmp_path, answered))
    assert list((tmp_path / "out").iterdir()) == []


def test_rows_of_a_log_need_a_suite_to_say_how_they_are_judged(tmp_path: Path) -> None:
    (task,), _ = made(log_of(tmp_path, unanswered))
    with pytest.raises(SuiteError, match='has no "target"'):
        infer_task(tmp_path / "out", task.name, source=False, train=0, test=5, splits=("test",))
    assert FolderSource(folder=tmp_path / "out").load(task.name, "test", 3, seed=0)[0].chat is not None


def test_the_suite_is_read_where_tasks_are_asked_for_and_trains_nothing(tmp_path: Path) -> None:
    made(log_of(tmp_path, answered))
    suite = str(tmp_path / "out" / "suite.yaml")
    assert [task.name for task in target_tasks(suite)] == ["summarise-this-letter-in"]
    with pytest.raises(SuiteError, match='or name "adapters" that are there already'):
        load_suite(suite)


def test_what_no_format_tells_is_left_to_a_judge_where_there_is_one(tmp_path: Path) -> None:
    judge = Judge(model="gpt", url="https://judge.example/v1", api_key_env="KEY")
    tasks, _ = made(log_of(tmp_path, json_asked, answered, unanswered), judge=judge)
    assert {task.name: task.judged for task in tasks} == {
        "give-the-parts-of": "json",
        "summarise-this-letter-in": "judge",
        "please-write-a-friendly": "judge",
    }
    read = {task.name: task.metric for task in load_tasks(tmp_path / "out" / "suite.yaml")}
    assert read["please-write-a-friendly"] == judge
    assert read["give-the-parts-of"].name == "format"
