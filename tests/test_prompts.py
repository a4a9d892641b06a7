"""Prompts files of every format and what is refused of them, the published files, and
sets by name, path and hub id.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from pace import within

from membench.datasets.known_sets import KNOWN, KnownSet
from membench.datasets.prompt_sets import PromptSet, read, resource, together
from membench.datasets.prompts import (
    LONGEST,
    Prompt,
    example_id,
    read_prompt_file,
    read_prompts,
    to_examples,
)
from membench.errors import UserError
from membench.fetching import hub, net, resources
from membench.types import UNLABELLED

PROMPTS = ROOT.parent / "shared" / "data" / "prompts"
published = pytest.mark.skipif(
    not PROMPTS.is_dir(), reason="the published prompts are not beside the checkout"
)

WEBSTER = {
    "caption": [
        "A red rug",
        'Mug, "large"; blue',
        "Poster\u2028of a dog",
        "Plain tile",
        "Café chair",
    ],
    "index": [1030727993, 2026642560, 7, 8, 9],
    "url": ["https://a.org/1.jpg", "https://a.org/2.jpg", None, "https://a.org/4.jpg", ""],
    "overfit_type": ["MV", "TV", "RV", "N", None],
    "scores": [3.9, 3.8, 3.7, 3.6, 3.5],
    "gen_seeds": [[1, 2], [3], [], None, [4]],  # pandas' lists, which are not read
}
HINTERSDORF = """;Caption;URL;type;mean_sscd;max_sscd;Index
0;A red rug;https://a.org/1.jpg;VM;0.83;0.84;11
1;"Mug, ""large""; blue";https://a.org/2.jpg;TM;0.19;0.2;12
2;Curtains, fabric: 702-22;https://a.org/3.jpg;TM;;;13
"""


def parquet(path: Path, **changes: list) -> Path:
    columns = {**WEBSTER, **changes}
    pq.write_table(
        pa.table({name: values for name, values in columns.items() if values is not None}), path
    )
    return path


def text(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path, **options) -> str:
    """The one line that says why the file cannot be read."""
    with pytest.raises(UserError) as caught:
        read_prompt_file(path, **options)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500 and str(path) in line
    return line


# ------------------------------------------------------------------------------ formats


def test_webster_parquet(tmp_path):
    found = read_prompt_file(parquet(tmp_path / "sdv1.parquet"))
    assert [p.text for p in found] == WEBSTER["caption"]
    assert [p.kind for p in found] == ["MV", "TV", "RV", "N", "unlabelled"]
    assert [p.label for p in found] == [1, 1, 1, 0, UNLABELLED]
    assert [p.url for p in found] == [
        "https://a.org/1.jpg",
        "https://a.org/2.jpg",
        "",
        "https://a.org/4.jpg",
        "",
    ]
    assert [p.index for p in found] == ["1030727993", "2026642560", "7", "8", "9"]
    assert {p.source for p in found} == {"sdv1.parquet"} and {p.similarity for p in found} == {None}
    # An explicit label fills what has none; N stays N, and a published memorized kind
    # stays memorized.
    assert [p.label for p in read_prompt_file(tmp_path / "sdv1.parquet", label=1)] == [
        1,
        1,
        1,
        0,
        1,
    ]
    assert [p.label for p in read_prompt_file(tmp_path / "sdv1.parquet", label=0)] == [
        1,
        1,
        1,
        0,
        0,
    ]
    assert [p.label for p in read_prompt_file(tmp_path / "sdv1.parquet", first=2)] == [1, 1]


def test_parquet_by_content_with_other_column_types(tmp_path):
    """Under another file name, with pandas' index, a float index with gaps,
    dictionary-encoded strings, and a column called Prompt.
    """
    path = tmp_path / "prompts.txt"
    table = pa.table(
        {
            "Prompt": pa.array(["a rug", "a mug"]).dictionary_encode(),
            "Index": [5.0, None],
            "__index_level_0__": [0, 1],
        }
    )
    pq.write_table(table, path)
    assert read_prompt_file(path, source="mine", label=0) == [
        Prompt("a rug", 0, "N", "mine", index="5"),
        Prompt("a mug", 0, "N", "mine"),
    ]


def test_wen_json_lines(tmp_path):
    """Caption, index and url say nothing about the label, which is the caller's; a
    column or a published kind does.
    """
    rows = [
        {"caption": "Café \u2028 rug", "index": 3, "url": "https://a.org/1.jpg"},
        {"caption": "a mug", "index": 4, "url": ""},
    ]
    path = text(tmp_path / "mem.txt", "\n".join(map(json.dumps, rows)) + "\n\n")
    assert read_prompt_file(path) == [
        Prompt(
            "Café \u2028 rug",
            UNLABELLED,
            "unlabelled",
            "mem.txt",
            url="https://a.org/1.jpg",
            index="3",
        ),
        Prompt("a mug", UNLABELLED, "unlabelled", "mem.txt", index="4"),
    ]
    assert [(p.label, p.kind) for p in read_prompt_file(path, label=0)] == [(0, "N")] * 2
    assert [(p.label, p.kind) for p in read_prompt_file(path, label=1)] == [(1, "memorized")] * 2
    text(
        path,
        '{"caption": "a rug", "overfit_type": "TV"}\n{"prompt": "a mug", "label": 0, "kind":'
        ' "held_out", "group": "g"}\n{"caption": "x"}',
    )
    assert read_prompt_file(path) == [
        Prompt("a rug", 1, "TV", "mem.txt"),
        Prompt("a mug", 0, "held_out", "mem.txt", group="g"),
        Prompt("x", UNLABELLED, "unlabelled", "mem.txt"),
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_hintersdorf_csv(tmp_path, newline):
    path = text(tmp_path / "mem.txt", "\ufeff" + HINTERSDORF.replace("\n", newline))
    assert read_prompt_file(path) == [
        Prompt(
            "A red rug", 1, "VM", "mem.txt", url="https://a.org/1.jpg", index="11", similarity=0.84
        ),
        Prompt(
            'Mug, "large"; blue',
            1,
            "TM",
            "mem.txt",
            url="https://a.org/2.jpg",
            index="12",
            similarity=0.2,
        ),
        Prompt(
            "Curtains, fabric: 702-22", 1, "TM", "mem.txt", url="https://a.org/3.jpg", index="13"
        ),
    ]
    coco = text(
        tmp_path / "coco.csv", ";Caption;URL;Index\n0;a dog;;0000\n1;a cat;;0001\n2;a dog;;0002\n"
    )
    found = read_prompt_file(coco)
    assert [(p.text, p.label, p.index) for p in found] == [
        ("a dog", -1, "0000"),
        ("a cat", -1, "0001"),
        ("a dog", -1, "0002"),
    ]
    assert [
        (e.condition.prompt, e.memorized) for e in to_examples(read_prompt_file(coco, label=0))
    ] == [("a dog", 0), ("a cat", 0)]


@pytest.mark.parametrize("indent", [None, 1])
def test_cocos_captions_as_they_are_published(indent: int | None, tmp_path) -> None:
    """On one line, which is no line of JSON lines; and indented."""
    layout = {
        "info": {"year": 2017},
        "images": [{"id": 7, "file_name": "7.jpg"}],
        "annotations": [
            {"image_id": 7, "id": 1, "caption": "a red mug"},
            {"image_id": 7, "id": 2, "caption": "two boats"},
        ],
    }
    file = text(tmp_path / "captions_val2017.json", json.dumps(layout, indent=indent))
    assert [row.text for row in read_prompt_file(file)] == ["a red mug", "two boats"]
    one = text(tmp_path / "one.json", json.dumps({"caption": "a red mug", "images": []}))
    assert [row.text for row in read_prompt_file(one)] == ["a red mug"]


def test_ones_own_csv_and_text(tmp_path):
    path = text(
        tmp_path / "mine.csv",
        'prompt,label,url,note,kind\n"a rug, 5x8",1,https://a.org/1.jpg,x,MV\n"two\nlines",,,,\na'
        " mug,0\n",
    )
    assert read_prompt_file(path, label=0) == [
        Prompt("a rug, 5x8", 1, "MV", "mine.csv", url="https://a.org/1.jpg"),
        Prompt("two\nlines", 0, "N", "mine.csv"),
        Prompt("a mug", 0, "N", "mine.csv"),
    ]
    # The format shows without the name
    named = text(tmp_path / "mine.dat", "prompt,label\na rug,1\n")
    assert [(p.text, p.label) for p in read_prompt_file(named)] == [("a rug", 1)]
    plain = text(tmp_path / "mine.txt", "prompts\n\n{a} rug; 5x8\r\nline\u2028separator\n")
    assert [p.text for p in read_prompt_file(plain)] == [
        "prompts",
        "{a} rug; 5x8",
        "line\u2028separator",
    ]
    assert {p.label for p in read_prompt_file(plain)} == {UNLABELLED} and {
        p.kind for p in read_prompt_file(plain, label=1)
    } == {"memorized"}


def test_a_table_as_spreadsheets_and_pandas_write_it(tmp_path):
    """Blank rows before and after, label columns by their other names, kinds in any
    case, JSON of columns by the number of the row.
    """

    def read(name, content):
        return [(p.text, p.label, p.kind) for p in read_prompt_file(text(tmp_path / name, content))]

    both = [("a", 1, "memorized"), ("b", 0, "N")]
    assert read("a.csv", "\n,\nprompt,label\na,1\n,\n\nb,0\n,,\n , \n") == both
    assert read("b.csv", "prompt,memorized\na,1\nb,0\n") == both
    assert read("b2.csv", "prompt,is_memorised\na,1\nb,0\n") == both
    assert (
        read("c.jsonl", '{"prompt":"a","Memorized":true}\n{"prompt":"b","memorized":false}\n')
        == both
    )
    columns = {"prompt": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 0}}
    assert read("d.json", json.dumps(columns)) == both
    assert read("e.csv", "prompt,kind\na,mv\nb,n\n") == [("a", 1, "MV"), ("b", 0, "N")]
    theirs = 'Caption,URL,type,mean_sscd,max_sscd,Index\n"a, b",u,VM,0.7,0.8,3\n'
    assert read("f.csv", theirs) == [("a, b", 1, "VM")]
    # A list of words, and not a table: its lines have different numbers of fields
    assert read("g.txt", "caption, watermark\na\n")[0][0] == "caption, watermark"


def test_against_another_reader(tmp_path):
    """Random captions full of quotes, separators and line ends come back as the csv and
    json modules read them.
    """
    draw = random.Random(0)
    captions = [
        "".join(draw.choices("ab\"';,{}\t\u2028é\n", k=draw.randrange(1, 30))) + str(i)
        for i in range(200)
    ]
    kinds = draw.choices(["VM", "TM"], k=200)
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=";", lineterminator="\n")
    writer.writerows(
        [
            ["", "Caption", "URL", "type", "Index"],
            *([i, c, "", kinds[i], i] for i, c in enumerate(captions)),
        ]
    )
    rows = [
        {"caption": c, "overfit_type": "MV" if k == "VM" else "N"}
        for c, k in zip(captions, kinds, strict=True)
    ]
    semicolons = read_prompt_file(text(tmp_path / "a.csv", out.getvalue()))
    lines = read_prompt_file(
        text(tmp_path / "a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    )
    table = read_prompt_file(
        parquet(
            tmp_path / "a",
            **{name: None for name in WEBSTER} | {"caption": captions, "overfit_type": kinds},
        )
    )
    assert (
        [p.text for p in semicolons]
        == [p.text for p in lines]
        == [p.text for p in table]
        == [c.strip() for c in captions]
    )
    assert [p.kind for p in semicolons] == [p.kind for p in table] == kinds
    assert [p.label for p in lines] == [int(k == "VM") for k in kinds]


@pytest.mark.parametrize(
    "content",
    [
        "prompt;label\na red rug;1\na mug;0\n",
        "TEXT\tLabel\na red rug\t1.0\na mug\t0.0\n",
        "Caption|LABEL\na red rug|True\na mug|false\n",
        "\ufeffindex,Prompt,label\n0,a red rug,TRUE\n1,a mug,0\n",
        '[{"Text": "a red rug", "label": 1.0}, {"Text": "a mug", "label": false}]',
        '{\n"a": {"caption": "a red rug", "label": 1},\n"b": {"caption": "a mug", "label": 0}\n}',
        '{"a": {"caption": "a red rug", "label": 1}, "b": {"caption": "a mug", "label": 0}}',
        '{"prompt": ["a red rug", "a mug"], "label": [1, 0]}',
    ],
)
def test_tables_as_people_write_them(tmp_path, content):
    path = text(tmp_path / ("a.json" if content[0] in "[{" else "a.csv"), content)
    assert [(p.text, p.label) for p in read_prompt_file(path)] == [("a red rug", 1), ("a mug", 0)]


def test_an_array_and_a_dictionary_of_captions(tmp_path):
    array = text(tmp_path / "a.json", '["a red rug", "a mug"]')
    told = text(tmp_path / "b.json", '{"1.png": "a red rug",\n "2.png": "a mug"}')
    line = text(tmp_path / "c.json", '{"1.png": "a red rug", "2.png": "a mug"}\n')
    for path in (array, told, line):
        assert [p.text for p in read_prompt_file(path)] == ["a red rug", "a mug"]


def test_membench_s_table(tmp_path):
    """Hong et al. (2024): a row an address, which stands in a list as Python writes it."""
    content = ",prompt,urls\n0,a flag,['http://x/1']\n1,a rug,\"['http://x/1', 'http://x/2']\"\n"
    found = read_prompt_file(text(tmp_path / "SD1_final.csv", content), label=1)
    assert [(p.text, p.url, p.label) for p in found] == [
        ("a flag", "http://x/1", 1),
        ("a rug", "http://x/1", 1),
        ("a rug", "http://x/2", 1),
    ]


# ----------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "words,label\na,1\n", ["no column 'prompt'", "'words', 'label'"]),
        (
            "a.csv",
            ";Caption;Index;type\n0;a;1;VM\n",
            ["no column 'URL'", "'Caption', 'Index', 'type'"],
        ),
        ("a.csv", ";URL;Index\n0;u;1\n", ["no column 'Caption'"]),
        (
            "a.jsonl",
            '{"caption": "a"}\n{"text_": "b"}\n',
            ["line 2", "no column 'caption'", "'text_'"],
        ),
        ("a.csv", "prompt,prompt\na,b\n", ["'prompt' twice"]),
        ("a.jsonl", '{"caption":"a","caption":"b"}\n', ["line 1, has the column 'caption' twice"]),
        (
            "a.jsonl",
            '{"caption":"a"}\n{"caption":"b","label":1,"Label":0}\n',
            ["line 2, has the column 'label' twice"],
        ),
        ("a.json", '[{"text":"a",\n"label":1,"LABEL":0}]', ["has the column 'label' twice"]),
        ("a.csv", "prompt,label\na,1\nb,0,c\n", ["line 3", "3 fields", "header has 2", "quote"]),
        # The reader of old took "a rug"
        ("a.csv", "prompt\na rug, blue\n", ["line 2", "2 fields"]),
        ("a.csv", 'prompt,label\na,1\n"b,0\nc,1\n', ["damaged CSV"]),
        # Cut short
        ("a.csv", ";Caption;URL;Index\n0;a;;1\n1;b\n", ["line 3", "2 fields", "header has 4"]),
        ("a.csv", ";Caption;URL;Index\n0;a;;1\n;;;\n", ["line 3", "prompt is empty"]),
        ("a.csv", "prompt,label\na,1\n,0\n", ["line 3", "prompt is empty"]),
        ("a.csv", '"prompt\n(English)",label\na,1\n', ["no column 'prompt'", "(English)"]),
        ("a.csv", "prompt,labels\na,1\n", ["'labels'", "none called 'label'"]),
        ("a.csv", "prompt,Lable\na,1\n", ["'Lable'", "none called 'label'"]),
        ("a.jsonl", '{"prompt": "a", "labels": 1}\n', ["'labels'", "none called 'label'"]),
        ("a.json", '[{"prompt": "a", "labels": 1}]', ["'labels'", "none called 'label'"]),
        ("a.csv", "caption,prompt\na,b\n", ["'caption' and 'prompt'", "remove or rename"]),
        ("a.jsonl", '{"prompt": "a", "text": "b"}\n', ["'prompt' and 'text'"]),
        ("a.txt", "prompt,seed\na rug,3\na mug,4\n", ["'prompt,seed' is the header"]),
        ("a.txt", "score\tPrompt\n3\ta rug\n", ["is the header"]),
        ("a.txt", "\n<!DOCTYPE html>\n<html></html>\n", ["web page"]),
        (
            "a.csv",
            ";Caption;URL;type;Index\n0;a;;XX;1\n",
            ["line 2", "'XX'", "MV, TV, RV, VM, TM, N"],
        ),
        (
            "a.csv",
            ";Caption;URL;max_sscd;Index\n0;a;;high;1\n",
            ["line 2", "'high'", "not a number"],
        ),
        (
            "a.csv",
            ";Caption;URL;type;Index\n0;a;;VM;1\n1;a;;;2\n",
            ["line 3", "line 2 again", "another label"],
        ),
        ("a.csv", "prompt\na\n a \n", ["line 3", "line 2 again"]),
        ("a.txt", "a\nb\na\n", ["line 3", "line 1 again"]),
        ("a.csv", "\n", ["empty"]),
        ("a.csv", ";Caption;URL;Index\n", ["no prompt"]),
        ("a.csv", "prompt\nabc\0\n", ["line 2", "NUL"]),
        ("a.jsonl", '{"caption": "a\\u0000b"}', ["line 1", "NUL"]),
        ("a.jsonl", '{"caption": "\\ud83d"}', ["line 1", "surrogate"]),
        *(
            (
                "a.jsonl",
                f'{{"caption": "a", "{column}": "\\ud800"}}',
                [f"line 1: the {told} holds half a surrogate pair"],
            )
            for column, told in (
                *(("kind", "kind"), ("overfit_type", "kind"), ("source", "source")),
                *(("group", "group"), ("url", "url"), ("index", "index"), ("label", "label")),
            )
        ),
        ("a.json", '["a", "\\udfff"]', ["row 2: text holds half a surrogate pair"]),
        ("\udcff.csv", "prompt\na\n", ["its name is not UTF-8"]),
        ("a.jsonl", '{"caption": "a"}\n{"caption": "b", "url": "htt\n', ["line 2", "damaged JSON"]),
        ("a.jsonl", '{"caption": ' + "[" * 50_000, ["line 1", "damaged JSON"]),
        ("a.json", "[1, 2]", ["row 1: no object"]),
        ("a.jsonl", '{"caption": "a"}\n{"caption": 7}\n', ["line 2", "not text but int"]),
        ("a.jsonl", '{"caption": "a", "label": 2}\n', ["line 1", "label '2'"]),
        ("a.jsonl", '{"caption": null}\n', ["line 1", "empty"]),
        ("a.txt", "Prompt\na rug\n", ["line 1", "'Prompt' is the header", "file .csv"]),
        ("a.txt", "caf\xe9\n".encode("latin-1"), ["not UTF-8", "byte 3"]),
        ("a.txt", "a rug\n".encode("utf-16"), ["not UTF-8", "byte 0"]),
        ("a.parquet", b"caption", ["no Parquet"]),
        ("a.parquet", b"PAR1" + bytes(100) + b"PAR1", ["damaged Parquet"]),
        ("a.parquet", b"", ["empty"]),
        ("a.txt", "a\n" + "b" * (LONGEST + 1), ["line 2", "10,001 characters", "10,000"]),
    ],
)
def test_a_bad_file(tmp_path, name, content, words):
    line = refusal(text(tmp_path / name, content))
    assert all(word in line for word in words), line


def test_a_bad_parquet(tmp_path):
    path = parquet(tmp_path / "a.parquet")
    whole = path.read_bytes()
    assert "damaged Parquet" in refusal(text(path, whole[:-200]))
    assert "damaged Parquet" in refusal(text(path, whole[:4] + bytes(200) + whole[204:]))
    assert "row 2: the prompt is empty" in refusal(
        parquet(path, caption=["a", None, "c", "d", "e"])
    )
    assert "row 3: the prompt of row 1 again, with another label" in refusal(
        parquet(path, caption=["a", "b", "a", "d", "e"], overfit_type=["MV", "TV", "N", "N", "N"])
    )
    assert "not text but int" in refusal(parquet(path, caption=[1, 2, 3, 4, 5]))
    assert "not text but bytes" in refusal(parquet(path, caption=[b"a", b"b", b"c", b"d", b"e"]))
    assert "'XV'" in refusal(parquet(path, overfit_type=["MV", "XV", "N", "N", "N"]))
    line = refusal(parquet(path, caption=None))
    assert "no column 'caption'" in line and "'index', 'url', 'overfit_type'" in line
    assert "holds no prompt" in refusal(
        parquet(path, **{name: None for name in WEBSTER}, **{"prompt": pa.array([], pa.string())})
    )


def test_a_line_of_10_mb_is_refused_at_once_and_not_echoed(tmp_path):
    for name, start in (
        ("a.txt", ""),
        ("a.csv", "prompt\n"),
        ("b.csv", ""),
        ("a.jsonl", '{"caption": "'),
    ):
        path = text(tmp_path / name, start + "word " * 2_000_000)
        with within(20):
            line = refusal(path)
        assert "10,000," in line and "10,000" in line and "word" not in line and len(line) < 250


@pytest.mark.parametrize("name", ["kind", "source"])
def test_a_kind_and_a_source_are_words(tmp_path, name):
    """Tables and plots name them: of an endless one no plot could be laid out."""
    text(tmp_path / "a.csv", f"prompt,label,{name}\na rug,1,{'x' * 200}\n")
    assert len(read_prompt_file(tmp_path / "a.csv")) == 1
    line = refusal(text(tmp_path / "a.csv", f"prompt,label,{name}\na rug,1,{'x' * 201}\n"))
    assert f"line 2: the {name} has 201 characters; it may have 200" in line


def test_a_missing_file_a_folder_and_a_wrong_label(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.csv")
    assert "does not exist" in refusal(tmp_path / ("a" * 300))
    assert "is a folder" in refusal(tmp_path)
    with pytest.raises(ValueError, match="label is 2"):
        read_prompt_file(tmp_path / "none.csv", label=2)


# ----------------------------------------------------------------------------- examples


def test_rows_of_one_text_are_one_example():
    rows = [
        Prompt("a red rug", 1, "MV", "x", url="https://a.org/1"),
        Prompt("another thing", 0, "N", "y"),
        Prompt("a red rug", 1, "TV", "z", group="g"),
        Prompt("a red rugs", 1, "TV", "z"),
    ]
    rug, other, rugs = to_examples(rows)
    assert (rug.id, rug.memorized, rug.kind, rug.source, rug.condition.prompt) == (
        example_id("a red rug"),
        1,
        "MV",
        "x",
        "a red rug",
    )
    assert rug.group == rugs.group != other.group
    with pytest.raises(UserError, match="'a red rug' has label 1 in x and 0 in q; remove one"):
        to_examples([*rows, Prompt("a red rug", 0, "N", "q")])
    with pytest.raises(UserError, match="x: group 'g' holds memorized and other prompts"):
        to_examples([Prompt("a", 1, "MV", "x", group="g"), Prompt("b", 0, "N", "x", group="g")])


def test_examples_carry_no_more_than_the_condition(tmp_path):
    """A detector sees the condition: neither its id nor its prompt changes with label,
    kind, url or similarity.
    """
    path = text(tmp_path / "a.csv", HINTERSDORF)
    negatives = text(
        tmp_path / "b.csv",
        HINTERSDORF.replace(";VM;", ";;").replace(";TM;", ";;").replace("0.84", "0.1"),
    )
    memorized, others = read_prompts(path), to_examples(read_prompt_file(negatives, label=0))
    assert [e.condition for e in memorized] == [e.condition for e in others]
    assert ([e.memorized for e in memorized], [e.memorized for e in others]) == (
        [1, 1, 1],
        [0, 0, 0],
    )


# ------------------------------------------------------------------ the published files


@published
@pytest.mark.parametrize(
    "known", [known for known in KNOWN.values() if known.sha256], ids=lambda known: known.name
)
def test_a_published_file(known: KnownSet):
    (path,) = PROMPTS.glob(f"*/{known.file}")
    with within(60):
        found = read_prompt_file(path, label=known.label)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == known.sha256
    counts = {
        "hintersdorf": 500,
        "laion": 500,
        "coco": 10_000,
        "ren-sd1": 345,
        "ren-sd2": 219,
        "ren-gpt4": 500,
    }
    assert len(found) == known.rows == counts[known.name]
    assert {p.label for p in found} == {known.label}
    kinds = {"hintersdorf": {"VM": 112, "TM": 388}}.get(
        known.name, {"memorized" if known.label else "N": known.rows}
    )
    assert Counter(p.kind for p in found) == kinds
    assert len({p.text for p in found}) == {"coco": 9_966}.get(known.name, known.rows)
    if known.name == "hintersdorf":
        assert Counter(p.similarity is None for p in found) == {False: 487, True: 13}
        assert all(
            (p.kind == "VM") == (p.similarity >= 0.7) for p in found if p.similarity is not None
        )
        assert len({p.url for p in found}) == len({p.index for p in found}) == 500
    if known.name in ("hintersdorf", "ren-sd2"):
        assert (
            len({e.group for e in to_examples(found)})
            == {"hintersdorf": 349, "ren-sd2": 141}[known.name]
        )


@published
def test_the_published_files_agree():
    """Ren's 345 are the first of Hintersdorf's 500, quotes and all; no prompt is both
    memorized and not.
    """
    found = {
        known.name: [p.text for p in read_prompt_file(*PROMPTS.glob(f"*/{known.file}"))]
        for known in KNOWN.values()
        if known.sha256
    }
    assert found["ren-sd1"] == found["hintersdorf"][:345]
    assert not set(found["hintersdorf"] + found["ren-sd2"]) & set(
        found["laion"] + found["coco"] + found["ren-gpt4"]
    )


# ------------------------------------------------------------------------- sets by name


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no way out: whoever asks for the network fails the test."""
    monkeypatch.setenv("MEMBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def forbidden(*args, **kwargs):
        raise AssertionError("asked for the network")

    monkeypatch.setattr("socket.socket.connect", forbidden)
    monkeypatch.setattr("socket.getaddrinfo", forbidden)
    return tmp_path / "cache"


def known_file(cache: Path, monkeypatch, name: str, content: bytes, **changes) -> Path:
    """The cached file of a short name, with this content."""
    monkeypatch.setitem(
        KNOWN,
        name,
        replace(
            KNOWN[name], **{"sha256": hashlib.sha256(content).hexdigest(), "rows": 0, **changes}
        ),
    )
    path = cache / "prompts" / KNOWN[name].file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_table_of_known_sets():
    assert set(KNOWN) == {known.name for known in KNOWN.values()}
    for known in KNOWN.values():
        assert known.what and known.licence and bool(known.url) != bool(known.repo)
        # Pinned: a full commit, a full revision, or a digest.
        assert not known.url or (
            known.url.endswith("/" + known.file)
            and any(len(part) == 40 for part in known.url.split("/"))
        )
        assert known.url or len(known.revision) == 40 or len(known.md5) == 32
        assert len(known.sha256) in (0, 64)
    assert [known.name for known in KNOWN.values() if known.label == 0] == [
        "laion",
        "coco",
        "ren-gpt4",
        "gustavosta",
    ]


def test_sets_by_name_and_path_with_provenance(cache, monkeypatch, tmp_path):
    content = b";Caption;URL;Index\n0;a dog;;0\n1;a cat;;1\n2;a dog;;2\n"
    known_file(cache, monkeypatch, "coco", content)
    mine = text(tmp_path / "mine.txt", "a house\n")
    coco, own = read(f"coco, {mine}")
    assert coco.provenance == {
        "name": "coco",
        "file": "coco2014_val_10000.csv",
        "sha256": hashlib.sha256(content).hexdigest(),
        "url": KNOWN["coco"].url,
        "licence": "MIT",
        "label": 0,
        "same_as": "",
        "rows": 3,
        "unlabelled": 0,
        "repeated": 1,
        "left_out": 0,
        "dropped": 0,
    }
    assert [(p.text, p.label, p.source) for p in coco.prompts] == [
        ("a dog", 0, "coco"),
        ("a cat", 0, "coco"),
        ("a dog", 0, "coco"),
    ]
    assert own.prompts == (Prompt("a house", UNLABELLED, "unlabelled", "mine.txt"),)
    assert (
        own.provenance["name"] == "mine.txt"
        and own.provenance["unlabelled"] == 1
        and "url" not in own.provenance
    )
    (own,) = read(str(mine), label=1)
    assert own.prompts == (Prompt("a house", 1, "memorized", "mine.txt"),)
    assert own.provenance["label"] == 1 and own.provenance["unlabelled"] == 0
    json.dumps([coco.provenance, own.provenance])


def test_a_path_wins(cache, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text(tmp_path / "coco", "a house\n")
    text(tmp_path / "a,b.txt", "a garden\n")
    assert [p.text for s in read("coco") for p in s.prompts] == ["a house"]
    assert [p.text for s in read("a,b.txt") for p in s.prompts] == ["a garden"]


def test_negatives_of_a_set_are_its_negatives(cache, monkeypatch, capsys):
    known_file(cache, monkeypatch, "hintersdorf", HINTERSDORF.encode())
    known_file(cache, monkeypatch, "wen", b'{"caption": "a", "index": 1, "url": ""}\n', rows=1)
    for name in ("hintersdorf", "wen"):
        assert {p.label for s in read(name) for p in s.prompts} == {1}
        with pytest.raises(UserError, match=f"{name} gives no negatives: none of its"):
            read(name, label=0)
    webster = parquet(cache / "webster.parquet")
    (found,) = read(str(webster), label=0)
    assert [(p.text, p.label) for p in found.prompts] == [
        ("Plain tile", 0),
        ("Café chair", 0),
    ] and found.provenance["left_out"] == 3
    assert "3 prompts are not labelled as negatives" in capsys.readouterr().err


def test_unknown_names(cache, tmp_path):
    for names, words in [
        (
            "wenn",
            [
                "unknown prompt set 'wenn'. Did you mean 'wen'?",
                "webster-sd1",
                "gustavosta",
                "owner/name:file",
            ],
        ),
        ("coco,no/such.csv", ["prompts file no/such.csv does not exist"]),
        ("fraisdufour/templates-verbs", ["does not exist", "fraisdufour/templates-verbs:FILE"]),
        ("owner/data:../x.csv", ["'../x.csv' is no file of a hub repository"]),
        ("owner/data:/x.csv", ["'/x.csv' is no file of a hub repository"]),
        ("coco,", ["has an empty item"]),
        ("coco,coco", ["two sets called coco"]),
        (str(tmp_path), ["is a folder; name its files"]),
        ("a" * 5000, ["unknown prompt set"]),
    ]:
        with pytest.raises(UserError) as caught:
            read(names)
        assert all(word in str(caught.value) for word in words), caught.value
    (tmp_path / "x").mkdir()
    pair = [text(tmp_path / "x" / "a.txt", "a\n"), text(tmp_path / "a.txt", "b\n")]
    with pytest.raises(UserError, match=r"two sets called a\.txt"):
        read(",".join(map(str, pair)))


def test_what_is_missing_offline_is_named_with_its_command(cache, capsys):
    assert net.offline()
    with pytest.raises(UserError) as caught:
        read("ren-sd1,webster-sd1,someone/prompts:a b.csv@v1")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    for name, line in zip(
        ["ren-sd1", "webster-sd1", "someone/prompts:a b.csv@v1"], lines, strict=True
    ):
        assert line.endswith(f"membench download sd_webster --prompts {name}")
    assert "licence: MIT" in lines[0]
    assert resources.download([resource("wen")]) == 2 and "wen: missing" in capsys.readouterr().out


def test_a_changed_file_is_refused(cache, monkeypatch):
    path = known_file(cache, monkeypatch, "ren-sd1", b"a rug\na mug\n")
    assert [p.text for p in read("ren-sd1")[0].prompts] == ["a rug", "a mug"]
    path.write_bytes(b"a rug\na cup\n")
    with pytest.raises(UserError, match="SHA256"):
        read("ren-sd1")
    known_file(cache, monkeypatch, "ren-sd1", b"a rug\na mug\n", rows=345)
    with pytest.raises(UserError, match="has 2 prompts, not 345"):
        read("ren-sd1")


def test_hub_files(cache, monkeypatch, tmp_path):
    """By short name with the MD5, and by id with a revision; the hub's own cache is
    asked first, without a network.
    """
    file = parquet(tmp_path / "in the hub's cache.parquet")
    asked = []

    def hub_file(
        repo_id, filename, revision="", *, repo_type="dataset", local_only=False, advice=""
    ):
        asked.append((repo_id, filename, revision, repo_type, local_only))
        return file

    monkeypatch.setattr(hub, "hub_file", hub_file)
    (found,) = read("someone/prompts:data/a.parquet@v1.0", label=0)
    assert asked == [("someone/prompts", "data/a.parquet", "v1.0", "dataset", True)]
    assert [p.label for p in found.prompts] == [0, 0] and found.provenance["left_out"] == 3
    assert (found.provenance["repo"], found.provenance["revision"]) == ("someone/prompts", "v1.0")
    with pytest.raises(
        UserError,
        match=(
            f"webster-sd1 is {KNOWN['webster-sd1'].md5}; take the file as it is now by fraisdufour"
        ),
    ):
        read("webster-sd1")
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setitem(KNOWN, "webster-sd1", replace(KNOWN["webster-sd1"], md5=md5))
    (webster,) = read("webster-sd1")
    assert asked[-1] == (
        "fraisdufour/templates-verbs",
        "groundtruth_parquets/sdv1_bb_edge_groundtruth.parquet",
        "",
        "dataset",
        True,
    )
    assert [p.label for p in webster.prompts] == [1, 1, 1, 0, UNLABELLED] and webster.provenance[
        "revision"
    ] == "main"
    # A row that Webster left without a kind is not a negative
    (negatives,) = read("webster-sd1", label=0)
    assert [p.text for p in negatives.prompts] == ["Plain tile"] and negatives.provenance[
        "left_out"
    ] == 4
    # The first 500 of a longer file, and no fewer.
    captions = [f"prompt {i}" for i in range(501)] + [""]  # what follows is not looked at
    file = parquet(
        tmp_path / "eval.parquet", **{name: None for name in WEBSTER}, **{"Prompt": captions}
    )
    (gustavosta,) = read("gustavosta")
    assert [p.text for p in gustavosta.prompts] == captions[:500] and {
        p.label for p in gustavosta.prompts
    } == {0}
    file = parquet(
        tmp_path / "eval.parquet", **{name: None for name in WEBSTER}, **{"Prompt": captions[:499]}
    )
    with pytest.raises(UserError, match="has 499 prompts, not 500"):
        read("gustavosta")


def test_fetching(cache, monkeypatch, capsys):
    """Through membench.fetching.net.fetch, with the pinned address and checksum, into
    the cache; all of it or none.
    """
    monkeypatch.delenv("HF_HUB_OFFLINE")
    files = {"ren-sd1": b"a rug\na mug\n", "ren-gpt4": b"a house\n"}
    for name, content in files.items():
        known_file(cache, monkeypatch, name, content).unlink()

    def fetch(url, path, *, sha256="", md5="", max_bytes=None, progress=False):
        (content,) = [c for n, c in files.items() if KNOWN[n].url == url]
        assert hashlib.sha256(content).hexdigest() == sha256
        path.write_bytes(content)
        return path

    monkeypatch.setattr(net, "fetch", fetch)
    with pytest.raises(UserError, match="unknown prompt set 'cocoa'"):
        read("ren-sd1,cocoa")
    assert not list(cache.rglob("*.txt"))
    assert [[p.text for p in s.prompts] for s in read("ren-sd1,ren-gpt4")] == [
        ["a rug", "a mug"],
        ["a house"],
    ]
    assert sorted(path.name for path in cache.rglob("*.txt")) == [
        "group_nomem500.txt",
        "sd1_mem345.txt",
    ]
    assert "fetching" in capsys.readouterr().err


# ------------------------------------------------------------- labels are never guessed

TEXTS = ["a quiet pond", "lentil soup", "a blue bicycle"]


def unlabelled_file(tmp_path: Path, how: str) -> Path:
    """TEXTS in a format that does not say what they are."""
    rows = [
        {"caption": t, "index": i, "url": f"https://a.org/{i}.jpg"} for i, t in enumerate(TEXTS)
    ]
    content = {
        "jsonl": "\n".join(map(json.dumps, rows)),
        "txt": "\n".join(TEXTS),
        "own.csv": "prompt,url\n" + "".join(f"{t},\n" for t in TEXTS),
        "published.csv": (
            ";Caption;URL;Index\n" + "".join(f"{i};{t};;{i}\n" for i, t in enumerate(TEXTS))
        ),
    }
    if how == "parquet":
        path = tmp_path / "normal.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    return text(tmp_path / f"normal.{how}", content[how])


FORMATS = pytest.mark.parametrize("how", ["jsonl", "txt", "own.csv", "published.csv", "parquet"])


@FORMATS
def test_a_format_that_says_nothing_labels_nothing(cache, tmp_path, how):
    from membench.tasks.sd_webster.sets import chosen_prompts

    path = unlabelled_file(tmp_path, how)
    others = text(tmp_path / "others.txt", "a house\n")
    examples, _, provenance = chosen_prompts(str(path), "")
    assert [e.memorized for e in examples] == [UNLABELLED] * 3
    assert [
        note
        for note in provenance["notes"]
        if f"{path.name}: 3 of 3 prompts are unlabelled" in note
    ]
    examples, _, provenance = chosen_prompts(str(path), str(others))
    assert [e.memorized for e in examples] == [1, 1, 1, 0] and "notes" not in provenance
    examples, _, provenance = chosen_prompts(str(others), str(path))
    assert [e.memorized for e in examples] == [1, 0, 0, 0] and "notes" not in provenance


@FORMATS
@pytest.mark.parametrize("label", [0, 1])
def test_a_known_set_keeps_its_label_under_any_name_and_format(
    cache, monkeypatch, tmp_path, how, label
):
    """Its texts are known by their hash; the role that would say the opposite is
    refused.
    """
    from membench.tasks.sd_webster.sets import chosen_prompts

    texts = hashlib.sha256(json.dumps(sorted(TEXTS), separators=(",", ":")).encode()).hexdigest()
    for name in ("coco", "wen"):  # of both labels; the one known by its texts has this one
        monkeypatch.setitem(
            KNOWN, name, replace(KNOWN[name], texts=texts if KNOWN[name].label == label else "")
        )
    name = {0: "coco", 1: "wen"}[label]
    path, others = unlabelled_file(tmp_path, how), text(tmp_path / "others.txt", "a house\n")
    examples, _, provenance = chosen_prompts(str(path), "")
    assert [e.memorized for e in examples] == [label] * 3 and provenance["prompts"][0][
        "same_as"
    ] == name
    assert provenance["notes"] == [
        f"{path.name}: these are the prompts of {name}; those without a label are taken as"
        f" {'memorized' if label else 'not memorized'}"
    ]
    wrong = {0: (path, others), 1: (others, path)}[label]
    why = {
        0: "gives no memorized prompts: all its 3 .they are those of coco.",
        1: "gives no negatives: none of its 3 prompts .they are",
    }
    with pytest.raises(UserError, match=f"{path.name} {why[label]}"):
        chosen_prompts(*map(str, wrong))
    right = {0: (others, path), 1: (path, others)}[label]
    assert Counter(e.memorized for e in chosen_prompts(*map(str, right))[0]) == {
        label: 3,
        1 - label: 1,
    }
    # A part of the set is not the set
    text(path, "\n".join(TEXTS[:2])).rename(tmp_path / "part.txt")
    assert {p.label for s in read(str(tmp_path / "part.txt")) for p in s.prompts} == {UNLABELLED}


def test_a_column_is_taken_at_its_word(cache, monkeypatch, tmp_path):
    """It may be about another model than the one that a known set's label is about."""
    mine = text(tmp_path / "mine.csv", "prompt,label,kind\na,1,\nb,0,\nc,,\nd,,TV\ne,,N\nf,,mine\n")
    for role, expected in ((None, UNLABELLED), (1, 1)):
        (found,) = read(str(mine), label=role)
        assert [p.label for p in found.prompts] == [1, 0, expected, 1, 0, expected]
        assert found.provenance["unlabelled"] == (2 if role is None else 0)
    texts = hashlib.sha256(json.dumps(sorted("abcdef"), separators=(",", ":")).encode()).hexdigest()
    monkeypatch.setitem(KNOWN, "laion", replace(KNOWN["laion"], texts=texts))
    assert [p.label for p in read(str(mine))[0].prompts] == [1, 0, 0, 1, 0, 0]


@published
@pytest.mark.parametrize(
    "known", [known for known in KNOWN.values() if known.sha256], ids=lambda known: known.name
)
def test_a_published_file_is_known_by_its_texts(cache, tmp_path, known):
    """Under another name, and as plain text or lines of JSON; the same role for all, so
    that none is guessed.
    """
    (path,) = PROMPTS.glob(f"*/{known.file}")
    texts = list(dict.fromkeys(p.text for p in read_prompt_file(path)))
    assert (
        known.texts
        == hashlib.sha256(
            json.dumps(sorted(texts), ensure_ascii=False, separators=(",", ":")).encode()
        ).hexdigest()
    )
    lines = "\n".join(
        json.dumps({"caption": t, "index": i, "url": ""}) for i, t in enumerate(reversed(texts))
    )
    for copy in (text(tmp_path / "x.dat", path.read_bytes()), text(tmp_path / "x.jsonl", lines)):
        (found,) = read(str(copy))
        assert {p.label for p in found.prompts} == {known.label} and KNOWN[
            found.provenance["same_as"]
        ].texts == known.texts


def test_wens_and_hintersdorfs_lists_are_of_the_same_prompts():
    assert KNOWN["wen"].texts == KNOWN["hintersdorf"].texts != ""


# -------------------------------------------------------------------------------- twins

TWINS = [
    ("a photo of a red circle", "A Photo  of a Red Circle"),
    ("caf\u00e9 table", "cafe\u0301 table"),  # NFC and NFD
    ("office \ufb01le", "office file"),  # a ligature: NFKC
    ("\uff32\uff35\uff27", "rug"),  # full width
    ("a\u00a0rug", "a\trug"),
    ("a\u200b rug", "a rug"),  # zero width
    ("STRASSE", "stra\u00dfe"),
    ("\u1e9e\u0301", "ss\u0301"),
    ("\u03a3\u03af\u03c2", "\u03c3\u03af\u03c3"),  # the three sigmas
    # CLIP splits at punctuation and digits whether or not there is a space
    ("a mug, red (2010)", "a mug ,red ( 2 0 1 0 )"),
    ("it's a_rug.", "It 's a _ rug ."),
    ("a mug \u2603\ufe0f", "a mug \u2603"),  # the snowman as an emoji
]
OTHERS = [
    ("a rug", "arug"),
    ("a rug", "a rug."),
    ("café", "cafe"),
    ("a-rug", "a rug"),
    ("a rug!!", "a rug! !"),  # other tokens
    ("it's", "its"),
    ("i", "\u0131"),
]


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_twins_with_two_labels_are_refused_with_both_rows(tmp_path, one, other):
    line = refusal(text(tmp_path / "t.csv", f'prompt,label\n"{one}",1\nx,0\n"{other}",0\n'))
    assert (
        "line 4: the prompt of line 2 but for case, white space or Unicode form, with another label"
        in line
    )
    rows = [{"caption": one, "label": 0}, {"caption": other, "label": 1}]
    assert "line 2: the prompt of line 1 but for" in refusal(
        text(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert "row 2: the prompt of row 1 but for" in refusal(tmp_path / "t.parquet")
    # With one label, or where one of them is unknown, they contradict nothing.
    for last in ("1", ""):
        assert (
            len(
                read_prompt_file(
                    text(tmp_path / "t.csv", f'prompt,label\n"{one}",1\n"{other}",{last}\n')
                )
            )
            == 2
        )


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_prompts_that_differ_otherwise_are_two(tmp_path, one, other):
    assert [
        p.label
        for p in read_prompt_file(text(tmp_path / "t.csv", f"prompt,label\n{one},1\n{other},0\n"))
    ] == [1, 0]


def test_twins_in_two_files(cache, tmp_path, capsys):
    """Both among the prompts: refused, with both rows.

    One of them a negative: dropped, as an exact one is.
    """
    from membench.tasks.sd_webster.sets import chosen_prompts

    one = text(tmp_path / "one.csv", "prompt,label\nx,1\na red rug,1\n")
    two = text(tmp_path / "two.csv", "prompt,label\nA Red  Rug,0\ny,0\n")
    with pytest.raises(UserError) as caught:
        chosen_prompts(f"{one},{two}", "")
    assert "label 1 in one.csv, line 3 ('a red rug') and 0 in two.csv, line 2; remove one" in str(
        caught.value
    )
    examples, _, provenance = chosen_prompts(str(one), str(two))
    assert [(e.condition.prompt, e.memorized) for e in examples] == [
        ("x", 1),
        ("a red rug", 1),
        ("y", 0),
    ]
    assert provenance["prompts"][1]["dropped"] == 1
    assert "two.csv: 1 prompt is among those of --prompts too; dropped" in capsys.readouterr().err


# -------------------------------------------------------------- positives and negatives


def a_set(name: str, *rows: tuple[str, int]) -> PromptSet:
    prompts = tuple(Prompt(t, label, "N" if label == 0 else "MV", name) for t, label in rows)
    return PromptSet(name, prompts, {"name": name, "dropped": 0})


def test_a_negative_that_is_a_positive_is_dropped(capsys):
    positives = [
        a_set("mem", ("a", 1), ("b", 1), ("c", 0)),
        a_set("more", ("a", 1), ("d", UNLABELLED)),
    ]
    negatives = [
        a_set("neg", ("a", 0), ("c", 0), ("d", 0), ("e", 0)),
        a_set("clear", ("f", 0), ("e", 0)),
    ]
    found = together(positives, negatives)
    assert found[:2] == positives and [s.provenance["dropped"] for s in found] == [0, 0, 2, 0]
    assert [[p.text for p in s.prompts] for s in found[2:]] == [["c", "e"], ["f", "e"]]
    assert (
        capsys.readouterr().err
        == "membench: neg: 2 prompts are among those of --prompts too; dropped from the negatives\n"
    )
    examples = to_examples(p for s in found for p in s.prompts)
    assert {e.condition.prompt: (e.memorized, e.source) for e in examples} == {
        "a": (1, "mem"),
        "b": (1, "mem"),
        "c": (0, "mem"),
        "d": (UNLABELLED, "more"),
        "e": (0, "neg"),
        "f": (0, "clear"),
    }
    assert negatives[0].provenance["dropped"] == 0  # what was given is left as it is


def test_two_labels_among_the_positives_are_refused():
    with pytest.raises(
        UserError, match="'a' has label 0 in webster and 1 in wen; give one of the two"
    ):
        together([a_set("webster", ("a", 0)), a_set("wen", ("a", 1))], [])
    with pytest.raises(UserError, match="neg: each of its prompts is among those of --prompts"):
        together([a_set("wen", ("a", 1))], [a_set("neg", ("a", 0))])
