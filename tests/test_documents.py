"""Tables of the documents are what the records beside them come to."""

from __future__ import annotations

import json
import os
import re
import sys

import pytest
from helpers import REPOSITORY, refusal

from project import accuracy, documents
from project.bench import __main__ as bench
from project.bench.fit import OURS
from project.bench.questions import QUESTIONS
from project.text_table import markdown

DOCUMENTS = sorted((REPOSITORY / "docs").glob("*.md"))
RECORDS = sorted(
    path for folder in ("bench", "accuracy") for path in (REPOSITORY / "docs" / folder).rglob("*.*")
)
TIMES = {"published": [0.02, 0.03, 0.025], OURS: [0.001, 0.001, 0.002]}
FIT = {
    "question": "fit",
    "title": "Training",
    "machine": {"processor": "Z80", "threads": 1, "gpu": None},
    "rows": [
        {"experiment": "mse", "device": "cpu", "loop": loop}
        | {"per iteration": times, "ratio": 0.025 / times[0]}
        for loop, times in TIMES.items()
    ],
}
TABLE = f"""
*Training*: processor Z80, threads 1.

| experiment | device | loop | per iteration | against published |
| --- | --- | --- | --- | --- |
| mse | cpu | published | 25 ms (20 to 30) | 1.2 x |
| mse | cpu | {OURS} | 1 ms (1 to 2) | 25.0 x |

"""


@pytest.fixture
def document(workplace):
    """One with a table that is not made yet, and its record."""
    (workplace / "bench.json").write_text(json.dumps(FIT))
    path = workplace / "speed.md"
    path.write_text("Before.\n<!-- from bench.json -->\nold\n<!-- end -->\nAfter.\n")
    return path


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_tables_are_current(path):
    assert documents.renewed(path) == documents.read(path), "python -m project.documents docs"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_every_record_stands_in_a_document(path):
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    names = [found[2] for text in texts for found in documents.MARKED.finditer(text)]
    assert any(path.relative_to(REPOSITORY / "docs").match(name) for name in names)


def test_only_what_stands_between_the_marks_is_made_anew(document, capsys):
    documents.main(["."])
    assert capsys.readouterr().out == "speed.md\n"
    begin, end = "<!-- from bench.json -->\n", "<!-- end -->\n"
    assert document.read_text() == f"Before.\n{begin}{TABLE}{end}After.\n"
    documents.main(["."])
    assert capsys.readouterr().out == "", "nothing to do"


def test_star_stands_for_any_number_of_machines(document):
    document.write_text(document.read_text().replace("bench.json", "bench/*/fit.json"))
    assert "-->\n<!-- end -->" in documents.renewed(document)
    for name in ("old", "new"):
        (document.parent / "bench" / name).mkdir(parents=True)
        (document.parent / "bench" / name / "fit.json").write_text(json.dumps(FIT))
    assert TABLE.removesuffix("\n") + TABLE in documents.renewed(document)


def test_terminal_shows_the_same_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    QUESTIONS["fit"].table(FIT).show()
    out = capsys.readouterr().out
    for line in re.findall(r"^\| mse.*$", TABLE, re.MULTILINE):
        assert all(cell in out for cell in line.strip("| ").split(" | "))


ROWS = {
    "fit": FIT["rows"],
    "iteration": [
        {"batch": 100, "piece": piece, "seconds": 0.001, "share": 0.5, "peak": 1e11}
        | {"gflops": gflops, "of peak": gflops and gflops / 100}
        for piece, gflops in (("loss", None), ("= project.fit", 50.0))
    ],
    "kernel": [
        {"layer": "C1", "batch": 1, "device": "cpu", "version": "fused (cpu)", "ratio": 9.0}
        | {"forward": [0.001], "forward + backward": [0.002], "roofline": 0.5}
    ],
    "race": [
        {
            "loop": "published",
            "device": "cpu",
            "trained": [9.0],
            "seconds": {"99 %": None},
            "curves": [[(9.0, 0.98)]],
        },
        {"loop": OURS, "device": "cpu", "trained": [2.0], "seconds": {"99 %": [1.0]}}
        | {"curves": [], "waits": {"first": 20.0, "later": 5.0}},
    ],
    "scaling": [
        {"batch": 100, "ranks": 2, "images per second": [1e4, 2e4]}
        | {"speed-up": 1.5, "efficiency": 0.75}
    ],
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_is_measured_is_kept_and_makes_its_table(name, workplace, monkeypatch, capsys):
    asked = QUESTIONS[name]._replace(run=lambda options: ROWS[name])
    monkeypatch.setitem(QUESTIONS, name, asked)
    bench.main([name, "--json=kept.json"])
    record = json.loads((workplace / "kept.json").read_text())
    assert len(record["rows"]) == len(ROWS[name])
    table = documents.table_of(record)
    assert " 5 " in table.title
    assert {len(line) for line in table.lines} == {len(asked.columns)}
    assert table.note in capsys.readouterr().out


def test_accuracies_have_their_mean_deviation_and_least():
    rows = [
        {"recipe": "a", "epochs": 3, "seeds": [0, 1, 2], "right": [990, 999, 996]},
        {"recipe": "b", "right": [99]},
    ]
    table = documents.table_of({"title": "Test", "of": 1000, "rows": rows})
    assert table.columns == ["recipe", "epochs", "seeds", "accuracy", "least", "by seed"]
    assert table.lines == [
        ["a", "3", "0 to 2", "99.50 +- 0.37 %", "99.00 %", "99.00, 99.90, 99.60 %"],
        ["b", "", "", "9.90 %", "", ""],
    ]


@pytest.fixture
def runs(workplace):
    """Folders of two runs, the second one's seed below the first one's, and the record's file."""
    for seed, correct in ((7, 96), (3, 98)):
        outcome = {"correct": correct, "total": 100}
        results = {"seed": seed, "test": None, "validation": outcome, "git": "0123456789abc"}
        (workplace / f"run{seed}").mkdir()
        (workplace / f"run{seed}/results.json").write_text(json.dumps(results))
    record = {"title": "Held out", "of": 100, "rows": [{"recipe": "old", "right": [90]}]}
    (workplace / "record.json").write_text(json.dumps(record))
    return workplace / "record.json"


def test_runs_become_a_row_of_a_record(runs):
    accuracy.main(["record.json", "new", "run7", "run3"])
    record = json.loads(runs.read_text())
    assert record["rows"][1:] == [
        {"recipe": "new", "seeds": [3, 7], "right": [98, 96], "commit": "01234567"}
    ]
    assert documents.table_of(record).lines[1][:3] == ["new", "3, 7", "97.00 +- 1.00 %"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["record.json", "new", "run8"], "run8/results.json"),
        (["other.json", "new", "run7"], "other.json"),
        (["damaged.json", "new", "run7"], "damaged.json is no JSON"),
        (["small.json", "new", "run7"], "of 60 images, and there is a run of 100"),
        (["list.json", "new", "run7"], "list.json is no record of a table"),
        (["record.json", "new", "list"], "list/results.json is no result of a run"),
        (["record.json", "new", "run7", "untold"], "without a test and without a validation"),
        (["record.json", "new", "run7", "./run7"], "a run is named twice"),
        (["record.json", "new", "more"], "more/results.json says that 101 of 100 images were"),
        (["mapping.json", "new", "run7"], "mapping.json is no record of a table"),
        (["many.json", "new", "run7"], "many.json is no record of a table"),
        (["pipe", "new", "run7"], "pipe is a folder, a pipe or a device; name a file"),
    ],
)
def test_what_makes_no_row_is_refused(arguments, words, runs, capsys):
    runs.with_name("damaged.json").write_text("{")
    runs.with_name("small.json").write_text('{"title": "Few", "of": 60, "rows": []}')
    runs.with_name("list.json").write_text("[]")
    runs.with_name("mapping.json").write_text('{"title": "Few", "of": 100, "rows": {}}')
    runs.with_name("many.json").write_text('{"title": "Few", "of": "many", "rows": []}')
    os.mkfifo(runs.with_name("pipe"))
    more = '{"test": {"correct": 101, "total": 100}, "seed": 0, "git": null}'
    for name, content in (
        ("list", "[]"),
        ("more", more),
        ("untold", '{"test": null, "validation": null}'),
    ):
        runs.with_name(name).mkdir()
        runs.with_name(name).joinpath("results.json").write_text(content)
    before = runs.read_text()
    assert words in refusal(capsys, accuracy.main, *arguments)
    assert runs.read_text() == before


def test_table_without_an_end_is_refused_and_nothing_is_lost(document, capsys):
    text = document.read_text().replace("<!-- end -->", "") + document.read_text()
    document.write_text(text)
    assert "speed.md has a table without an end" in refusal(capsys, documents.main, ".")
    assert document.read_text() == text


@pytest.mark.parametrize(
    "content",
    [
        *(None, "half of {", "[" * 100_000, "[]", '{"rows": []}', '{"question": "why"}'),
        '{"title": "", "of": 10, "rows": []}',
        '{"title": "", "of": 0, "rows": [{"right": [1]}], "machine": {}}',
        '{"title": "", "of": 1, "rows": [{"right": [NaN, 1]}], "machine": {}}',
        '{"title": "", "of": 1, "rows": [{"right": [%s]}], "machine": {}}' % ("9" * 999),
    ],
    ids=range(10),
)
def test_record_that_is_none_is_refused(content, document, capsys):
    (document.parent / "bench.json").unlink()
    if content is not None:
        (document.parent / "bench.json").write_text(content)
    line = refusal(capsys, documents.main, ".")
    assert line.startswith("error: bench.json is no record that a table is made from")


# From Python 3.13 on the second is a pattern like any other.
@pytest.mark.parametrize("name", ["/tmp/*.json", "**.json"][: 2 - (sys.version_info >= (3, 13))])
def test_name_that_can_be_none_is_refused(name, document, capsys):
    document.write_text(document.read_text().replace("bench.json", name))
    assert f"{name} is no name of a record" in refusal(capsys, documents.main, ".")


def test_document_that_cannot_be_read_leaves_the_others_alone(document, capsys):
    before = document.read_bytes()
    (document.parent / "zig.md").write_bytes(b"caf\xe9")
    assert "zig.md is no text in UTF-8" in refusal(capsys, documents.main, ".")
    assert document.read_bytes() == before


@pytest.mark.parametrize("name", ["bench.json", "zig.md"])
def test_pipe_is_not_waited_for(name, document, capsys):
    (document.parent / name).unlink(missing_ok=True)
    os.mkfifo(document.parent / name)
    assert f"{name} is a folder, a pipe or a device" in refusal(capsys, documents.main, ".")


def test_folder_without_documents_is_refused(workplace, capsys):
    assert "dosc has no Markdown file" in refusal(capsys, documents.main, "dosc")


def test_document_keeps_its_ends_of_lines(document):
    document.write_bytes(document.read_bytes().replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    documents.main(["."])
    text = document.read_bytes().decode()
    assert text.endswith("After.")
    assert "\n" not in text.replace("\r\n", "")
    assert TABLE in text.replace("\r\n", "\n")
    assert documents.renewed(document) == text


def test_name_of_a_record_may_have_a_space(document):
    (document.parent / "my bench.json").write_text(json.dumps(FIT))
    document.write_text(document.read_text().replace("bench.json", "my bench.json"))
    assert TABLE in documents.renewed(document)


def test_cell_of_several_lines_is_one_in_markdown():
    assert markdown(["a|b"], [["1\n2"]]) == ["| a\\|b |", "| --- |", "| 1 2 |"]
