"""Rows of local folders: what is read, and what is reported of a bad file."""

import json
from pathlib import Path
from typing import Any

import pytest
from traitroute.adapters import SuiteError
from traitroute.profiling.tasks.sources import BuiltInSource, FolderSource, HubSource, Row

GOOD = {"input": "2 + 2", "target": "4"}


def load(folder: Path, *, count: int = 10, seed: int = 0) -> list[Row]:
    return FolderSource(folder=folder).load("sums", "train", count, seed=seed)


def write(folder: Path, content: bytes | list[Any], name: str = "train.jsonl") -> Path:
    (folder / "sums").mkdir(exist_ok=True)
    data = content if isinstance(content, bytes) else "\n".join(map(json.dumps, content)).encode()
    (folder / "sums" / name).write_bytes(data)
    return folder


def test_jsonl_rows_come_in_file_order_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    rows = [GOOD | {"input": str(i)} for i in range(3)]
    write(tmp_path, b"\n\n".join(json.dumps(r).encode() for r in rows) + b"\n\n")
    assert load(tmp_path) == rows


def test_sample_is_seeded_and_without_repeats(tmp_path: Path) -> None:
    write(tmp_path, [GOOD | {"input": str(i)} for i in range(50)])
    some = [row["input"] for row in load(tmp_path, count=20)]
    assert some == [row["input"] for row in load(tmp_path, count=20)]
    assert some != [row["input"] for row in load(tmp_path, count=20, seed=1)]
    assert len(set(some)) == 20


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ([GOOD, {"input": "x"}], ["train.jsonl, line 2", '"target"', "['input']"]),
        ([GOOD, GOOD | {"target": 4}], ["line 2", '"target" as text']),
        (b'{"input": "a", "target": "b"}\nhello\n', ["line 2", "not JSON"]),
        (b'\n{"input": "\xff"}', ["line 2", "not UTF-8 text"]),
        ([GOOD, [1, 2]], ["line 2", "a row must be a JSON object"]),
        (b"\n \n", ["train.jsonl holds no rows"]),
    ],
    ids=["no target", "target no text", "no JSON", "no UTF-8", "no object", "empty"],
)
def test_bad_file_is_named_with_its_line(tmp_path: Path, content: bytes | list[Any], parts: list[str]) -> None:
    with pytest.raises(SuiteError) as error:
        load(write(tmp_path, content))
    assert [part for part in parts if part not in str(error.value)] == []


LABELLED = GOOD | {"label": "4"}


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("null", "the label is None, which names no class"),
        ("NaN", "the label is nan, which names no class"),
        ("-Infinity", "the label is -inf, which names no class"),
        ('["4"]', "which names no class: give text"),
        ('{"4": 1}', "which names no class: give text"),
        ("4", "the label 4 is a whole number, and '4' in "),
        ("4.0", "the label 4.0 is a decimal, and '4' in "),
        ("true", "the label True is true or false, and '4' in "),
    ],
)
def test_labels_that_name_no_class_or_are_not_written_alike_are_refused(
    tmp_path: Path, label: str, message: str
) -> None:
    lines = [json.dumps(LABELLED), json.dumps(GOOD)[:-1] + f', "label": {label}}}']
    with pytest.raises(SuiteError) as error:
        load(write(tmp_path, "\n".join(lines).encode()))
    assert "train.jsonl, line 2: " in str(error.value)
    assert message in str(error.value)


def test_one_beside_one_point_nought_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [GOOD | {"label": label} for label in (1, 2, 1.0)])
    with pytest.raises(SuiteError, match=r"line 3: the label 1\.0 is a decimal, and 1 in .*line 1"):
        load(tmp_path)


@pytest.mark.parametrize("labels", [["a", "b"], [1, 2], [True, False], [0.5, 1.5]])
def test_labels_of_one_kind_are_read(tmp_path: Path, labels: list[Any]) -> None:
    write(tmp_path, [GOOD | {"label": label} for label in labels])
    assert [row["label"] for row in load(tmp_path)] == labels


def test_missing_task_folder_lists_those_there_are(tmp_path: Path) -> None:
    for name in ("verbs", "nouns"):
        (tmp_path / name).mkdir()
    with pytest.raises(SuiteError, match=r"no task folder 'sums'; it has \['nouns', 'verbs'\]"):
        load(tmp_path)


def test_missing_split_names_both_formats(tmp_path: Path) -> None:
    write(tmp_path, [GOOD], name="test.jsonl")
    with pytest.raises(SuiteError, match=r"neither train\.jsonl nor train\.parquet"):
        load(tmp_path)


def test_parquet_rows_are_read_and_a_broken_file_is_named(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write(tmp_path, b"PAR1 cut short", name="train.parquet")
    with pytest.raises(SuiteError, match=r"train\.parquet is not Parquet"):
        load(tmp_path)
    parquet.write_table(pyarrow.Table.from_pylist([GOOD]), tmp_path / "sums" / "train.parquet")
    assert load(tmp_path) == [GOOD]
    nameless = pyarrow.Table.from_pylist([LABELLED, GOOD])
    parquet.write_table(nameless, tmp_path / "sums" / "train.parquet")
    with pytest.raises(SuiteError, match=r"train\.parquet, row 2: the label is None"):
        load(tmp_path)
    columns = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, names=["input", "input"])
    parquet.write_table(columns, tmp_path / "sums" / "train.parquet")
    with pytest.raises(SuiteError, match=r"train\.parquet is not Parquet: .*input"):
        load(tmp_path)


def test_built_in_rows_do_not_change_when_fewer_are_asked_for() -> None:
    source = BuiltInSource(built_in="mini", dataset="sentiment2")
    assert source.load("x", "test", 4, seed=0) == source.load("x", "test", 10, seed=0)[:4]


def test_unknown_built_in_task_lists_those_there_are() -> None:
    with pytest.raises(SuiteError, match=r"no task folder 'poems'; it has \['entailment', .*'word_problems'\]"):
        BuiltInSource(built_in="mini").load("poems", "test", 4, seed=0)


def test_rows_of_the_hub_are_chosen_by_their_columns_and_named() -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list([{"text": str(i), "label": i % 2} for i in range(6)])
    source = HubSource(hub="acme/moods", where="label == 1")
    rows = source._chosen("moods", "test", data, [4, 3, 1, 5], 2)
    assert [(row["text"], row.where) for row in rows] == [
        ("3", "acme/moods, test row 4"),
        ("1", "acme/moods, test row 2"),
    ]
    with pytest.raises(SuiteError, match=r'no row of acme/moods, test fulfils "where"'):
        source._chosen("moods", "test", data, [0, 2], 2)


def test_rows_of_the_hub_without_a_class_are_refused() -> None:
    datasets = pytest.importorskip("datasets")
    classes = datasets.Features({"label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"label": [0, -1, 1]}, features=classes)
    with pytest.raises(SuiteError, match=r"test row 2: its \"label\" is -1.*label >= 0"):
        HubSource(hub="acme/moods")._chosen("moods", "test", data, [0, 1, 2], 3)
    known = HubSource(hub="acme/moods", where="label >= 0")
    assert [r["label"] for r in known._chosen("moods", "test", data, [0, 1, 2], 3)] == [0, 1]


def test_a_task_may_read_another_data_sets_rows(tmp_path: Path) -> None:
    (tmp_path / "reviews").mkdir()
    row = {"input": "fine", "target": "good"}
    (tmp_path / "reviews" / "test.jsonl").write_text(json.dumps(row) + "\n")
    source = FolderSource(folder=tmp_path, dataset="reviews")
    assert source.load("reviews_yes_no", "test", 5, seed=0) == [row]


@pytest.mark.parametrize("split", ["train.jsonl", "train.csv"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, split: str) -> None:
    content = '{"input": "2 + 2", "target": "4"}' if split.endswith("jsonl") else "input,target\r\n2 + 2,4\r\n"
    assert load(write(tmp_path, b"\xef\xbb\xbf" + content.encode(), split)) == [GOOD]


def test_csv_cells_may_hold_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    write(tmp_path, b'input,target,label\n"a, ""b""\nc",yes,x\nd,no,y\n', "train.csv")
    first, second = load(tmp_path)
    assert first == {"input": 'a, "b"\nc', "target": "yes", "label": "x"}
    assert second.where.endswith("train.csv, line 4")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"input,target\na,b,c\n", "line 2: not as many cells as the 2 columns"),
        (b"input,target\na\n", "line 2: not as many cells"),
        (b"input;target\na;b\n", "line 2: the row needs \"input\" as text; it has ['input;target']"),
        (b'input,target\n"a,b\n', "not CSV with commas: unexpected end of data"),
        (b"input,target\n" + b"x" * 200_000 + b",b\n", "field larger than field limit"),
        (b"input,target\n\xff,b\n", "line 2: not UTF-8"),
        (b"input,target\n", "holds no rows"),
    ],
)
def test_bad_csv_is_named_with_its_line(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(SuiteError) as error:
        load(write(tmp_path, content, "train.csv"))
    assert reason in str(error.value)


def saved(folder: Path, rows: list[dict[str, Any]], **classes: list[str]) -> Path:
    datasets = pytest.importorskip("datasets", reason="needs datasets: pip install 'traitroute[profile]'")
    data = datasets.Dataset.from_list(rows)
    for column, names in classes.items():
        data = data.cast_column(column, datasets.ClassLabel(names=names))
    datasets.DatasetDict({"train": data}).save_to_disk(str(folder / "sums"))
    return folder


@pytest.mark.slow
def test_a_saved_data_set_gives_its_rows_and_the_names_of_classes(tmp_path: Path) -> None:
    rows = [GOOD | {"label": i % 2} for i in range(4)]
    assert [row["label"] for row in load(saved(tmp_path, rows, label=["odd", "even"]))] == ["odd", "even"] * 2


@pytest.mark.slow
def test_a_saved_row_without_a_class_is_named(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match='row 2: its "label" is -1'):
        load(saved(tmp_path, [GOOD | {"label": i} for i in (0, -1)], label=["odd", "even"]))


@pytest.mark.slow
def test_a_saved_conversation_has_no_columns_that_only_other_rows_have(tmp_path: Path) -> None:
    call = {"function": {"name": "find", "arguments": "{}"}}
    said = {"role": "assistant", "content": "x", "tool_calls": None}
    rows = [
        {"messages": [{"role": "user", "content": "a", "tool_calls": None}, said]},
        {"messages": [{"role": "user", "content": "b", "tool_calls": None}, said | {"tool_calls": [call]}]},
    ]
    first, second = load(saved(tmp_path, rows))
    assert first.chat and second.chat
    assert first.chat.messages == ({"role": "user", "content": "a"},)
    assert (first["target"], second["input"]) == ("x", "b")


@pytest.mark.slow
def test_a_folder_that_datasets_did_not_save_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sums" / "train").mkdir(parents=True)
    (tmp_path / "sums" / "train" / "state.json").write_text('{"_data_files": [{"filename": "../../secret.arrow"}]}')
    with pytest.raises(SuiteError, match="holds no data set that datasets saved"):
        load(tmp_path)
