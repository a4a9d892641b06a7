"""Text of unknown origin, for a terminal, for Markdown and for a spreadsheet."""

from __future__ import annotations

import unicodedata

import pandas as pd
import pytest

from membench.plain import for_spreadsheet, marked_down, plain
from membench.reports.output import markdown
from membench.reports.terminal import table

CONTROLS = [
    chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Zl", "Zp")
]
BIDI = [*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\u00ad"]


@pytest.mark.parametrize("character", [*CONTROLS, *BIDI])
def test_no_control_or_direction_survives(character: str) -> None:
    for shown in (
        plain(f"a{character}b"),
        marked_down(f"a{character}b"),
        table("", pd.DataFrame({character: [f"{character}b"]})),
    ):
        assert character not in shown or character == "\n"
    assert plain(f"a{character}b").isprintable()


def test_other_text_stays() -> None:
    for text in (
        "",
        "a mug, 15 oz",
        "Ünïcödé 漢字 👩\u200d👩",
        "0.912 [0.884, 0.936]",
        "≥ 0.5 ± 1 %",
    ):
        assert plain(text) == text
    assert plain("\udcff") == "\\udcff"  # of a file name that is not UTF-8
    assert plain("a\x1b[31mb\nc\u202ed") == "a\\x1b[31mb\\nc\\u202ed"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "0.912 [0.884, 0.936]",
            "28.8 [24.5, 33.6] (1 of 3 seeds)",
            "n/a",
            "0.500 [n/a]",
            "cfg_norm",
            "draws=4 images=0",
            "< 0.001",
        ),
        *(
            "AT&T",
            "low [0.6, 0.7)",
            "-0.2 [-0.3, 0.1]",
            "copied @N_G=1,000",
            "12/96 PARTIAL",
            "p ≥ 0.67",
            "caption_ngrams (deterministic)",
        ),
    ],
)
def test_what_tables_hold_reads_the_same_in_markdown(text: str) -> None:
    assert marked_down(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](http://x)", "\\[a](http\\://x)"),
        ("![a](b)", "!\\[a](b)"),
        ("[1, 2](javascript:x)", "\\[1, 2](javascript:x)"),
        ("[n/a][x]", "\\[n/a]\\[x]"),
        ("<img src=x onerror=y>", "&lt;img src=x onerror=y>"),
        ("</td>", "&lt;/td>"),
        ("<!-- end -->", "&lt;!-- end -->"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("`rm`", "\\`rm\\`"),
        ("a|b", "a\\|b"),
        ("\\|", "\\\\\\|"),
        ("*a* _b_ ~~c~~ $d$", "\\*a\\* \\_b\\_ \\~\\~c\\~\\~ \\$d\\$"),
        ("www.example.com", "www&#8203;.example.com"),
        ("# a", "\\# a"),
        ("> a", "\\> a"),
        (">=: a", "\\>=: a"),
        ("- a", "\\- a"),
        ("1. a", "1\\. a"),
    ],
)
def test_markdown_means_itself(text: str, expected: str) -> None:
    assert marked_down(text) == expected
    assert markdown(pd.DataFrame({text: [text]})) == f"| {expected} |\n| --- |\n| {expected} |"


def test_a_spreadsheet_sees_no_formula_and_the_same_numbers() -> None:
    frame = pd.DataFrame(
        {
            "name": ["=1+1", "+a", "-a", "@a", "\t=a", " =a", "＝a", "\u00a0\u3000=a", "a=b", None],
            "x": [-1.5, 0.1 + 0.2, 1e-9, 2, 3, 4, 5, 5, 6, float("nan")],
        }
    )
    frame = frame.assign(
        whole=range(-5, 5), count=pd.array([1, None, *[-3] * 8], dtype="Int64"), flag=True
    )
    made = for_spreadsheet(frame)
    shown = ["'=1+1", "'+a", "'-a", "'@a", "'\\t=a", "' =a", "'＝a", "'\u00a0\u3000=a", "a=b"]
    assert made.name.tolist()[:9] == shown and made.name.isna().tolist()[9]
    numbers = ["x", "whole", "count", "flag"]
    assert made[numbers].to_csv() == frame[numbers].to_csv()
