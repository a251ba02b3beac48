"""The written report: self-contained, complete beside its page, and the same for the same study."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from traitroute.adapters import InputError
from traitroute.profiling.report import Report, Table, write_report
from traitroute.profiling.report.corpus import Corpus
from traitroute.profiling.report.report import FAMILIES
from traitroute.profiling.study import Study
from traitroute.profiling.tasks.ablation import Ablation
from traitroute.profiling.tasks.task import Task

pytestmark = pytest.mark.slow

pytest.importorskip("matplotlib")
parquet = pytest.importorskip("pyarrow.parquet")

MakeStudy = Callable[..., Study]
GAIN = {("entailment", "toxicity"): 0.8, ("wrong", "sentiment3"): 0.1}
WRONG = Ablation(name="wrong", of="sentiment3", change="mislabelled")


class Page(HTMLParser):
    """Images, links, anchors and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.anchors.add(values.get("id") or "")
        if tag == "img":
            self.images.append(values)
        if tag == "a":
            self.links.append(values.get("href") or "")


def write(study: Study, out: Path) -> Report:
    """Only families that need no parser, to be quick."""
    some = [f for f in FAMILIES if f.key in ("traits", "ablations")]
    return write_report(study, out, families=some)


def write_all(study: Study, out: Path) -> Report:
    return write_report(study, out, corpus=Corpus(study, parser_name="no_such_model", encoder_given=Letters()))


class Letters:
    def encode(self, sentences: list[str], **options: object) -> np.ndarray:
        return np.array([[text.count(c) for c in "etaoinshr"] for text in sentences], float)


@pytest.fixture(scope="module")
def written(make_study: MakeStudy, tmp_path_factory: pytest.TempPathFactory) -> Report:
    study = make_study(GAIN, ablations=(WRONG,), labels={"1": "<b>calm</b>"})
    return write_all(study, tmp_path_factory.mktemp("report") / "out")


def test_the_page_loads_nothing_from_elsewhere(written: Report) -> None:
    text = written.page.read_text()
    page = Page(text)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert all((i["src"] or "").startswith("data:image/svg+xml;base64,") for i in page.images)
    without_images = re.sub(r'src="data:[^"]*"', "", text)
    assert not re.search(r"https?://|url\(|@import", without_images)


def test_every_picture_has_words_a_place_and_files(written: Report) -> None:
    page = Page(written.page.read_text())
    assert len(page.images) >= 12
    assert all((i["alt"] or "").strip() for i in page.images)
    for link in page.links:
        found = link[1:] in page.anchors if link.startswith("#") else (written.page.parent / link).is_file()
        assert found, link


def test_what_users_wrote_is_escaped(written: Report) -> None:
    text = written.page.read_text()
    assert "&lt;b&gt;calm&lt;/b&gt;" in text
    assert "<b>calm" not in text


def test_tables_say_the_same_in_csv_and_parquet(written: Report) -> None:
    folder = written.page.parent / "tables"
    table = parquet.read_table(folder / "gains_strict.parquet")
    lines = (folder / "gains_strict.csv").read_text().splitlines()
    assert lines[0].split(",") == table.column_names
    assert len(lines) - 1 == table.num_rows == 20
    assert sum(v == "gain" for v in table.column("verdict").to_pylist()) == 1


def test_absent_families_are_named_in_the_page_and_in_the_result(written: Report) -> None:
    left_out = {each.what: each.reason for each in written.left_out}
    assert set(left_out) == {"Syntax", "Similarity of style", "What controls explain", "Trained again"}
    assert "no_such_model" in left_out["Syntax"]
    assert "Left out: syntax." in written.page.read_text()
    manifest = json.loads((written.page.parent / "report.json").read_text())
    assert [each["what"] for each in manifest["left_out"]] == list(left_out)


def test_warnings_of_the_rows_are_on_the_page_and_in_the_manifest(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study()
    sentence = "toxicity: 3 of 60 test rows (5%) ask <what> a training row asks"
    warned = replace(study, summary=study.summary.changed(warnings=(sentence,)))
    found = write_report(warned, tmp_path / "out", families=[])
    assert f"Warning: {escape(sentence)}" in found.page.read_text()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["warnings"] == [sentence]


def test_the_same_study_gives_the_same_bytes_and_old_files_go(make_study: MakeStudy, tmp_path: Path) -> None:
    first, own = tmp_path / "first", tmp_path / "first" / "figures" / "mine.png"
    with_ablation = write(make_study(GAIN, ablations=(WRONG,)), first)
    own.write_bytes(b"kept")
    assert first / "figures" / "ablation_effects.svg" in with_ablation.files
    again, other = write(make_study(GAIN), first), write(make_study(GAIN), tmp_path / "second")
    assert not (first / "figures" / "ablation_effects.svg").exists()
    assert own.read_bytes() == b"kept"
    assert [f.read_bytes() for f in again.files] == [f.read_bytes() for f in other.files]


def test_a_study_without_effects_or_data_is_reported_all_the_same(
    make_study: MakeStudy, tasks: dict[str, Task], tmp_path: Path
) -> None:
    rows = {"rows": {"folder": "gone"}}
    moved = {name: Task.model_validate(t.model_dump() | rows) for name, t in tasks.items()}
    study = make_study(changed=moved)
    some = [f for f in FAMILIES if f.key not in ("traits", "lengths")]
    found = write_report(study, tmp_path / "out", families=some)
    assert [each.what for each in found.left_out] == [
        "Class habits",
        "Syntax",
        "Similarity of the data",
        "Ablations and controls",
        "Trained again",
    ]
    text = found.page.read_text()
    assert text.count("gone has no task folder") == 3
    assert "None of 20 cells is shown to differ" in text


def test_an_out_that_is_a_file_is_refused(make_study: MakeStudy, tmp_path: Path) -> None:
    file = tmp_path / "report"
    file.write_text("mine")
    with pytest.raises(InputError, match="is a file; give a folder"):
        write_report(make_study(), file)
    assert file.read_text() == "mine"


def test_what_is_not_known_is_empty_in_csv_and_null_in_parquet(tmp_path: Path) -> None:
    table = Table("t", "T", [{"a": 1, "b": float("nan")}, {"a": 2, "b": 0.5}])
    assert table.to_csv().decode() == "a,b\n1,\n2,0.5\n"
    (tmp_path / "t.parquet").write_bytes(table.to_parquet())
    assert parquet.read_table(tmp_path / "t.parquet").column("b").to_pylist() == [None, 0.5]
    assert table.shown(1) == [["1", "–"]]
