"""Money by hand: prompts that are read again, two models, probes; and what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import asdict

from justenough.cli import main
from justenough.errors import InputError
from justenough.evaluation import Price, evaluate, load_prices, table_of
from justenough.evaluation.costs import Costs
from justenough.evaluation.costs import costs_of as costs_of_columns
from justenough.trace import Probe, Step, Trace
from justenough.trace.building import columns_of
from justenough.trace.files import write_traces
from tests.builders import SIGNAL, step, trace

PRICES = {"small": Price(1.0, 10.0), "large": Price(5.0, 50.0)}


def cascade(identity: str, *, bits: float, correct: bool) -> Trace:
    """A small model's step of 100 tokens, then a large one's of 1,000."""
    first = replace(step(bits, tokens=1, correct=correct), tokens=1, model="small", prompt_tokens=20, latency_s=1.0)
    last = replace(step(0.1, tokens=1), model="large", prompt_tokens=30, latency_s=4.0)
    return replace(trace(first, last, id=identity), model="small")


def costs_of(traces: list[Trace], prices: dict[str, Price]) -> Costs:
    return costs_of_columns(columns_of(traces), prices)


def test_costs_by_hand() -> None:
    costs = costs_of([cascade("a", bits=0.1, correct=True)], PRICES)
    small, large = (20 * 1 + 1 * 10) / 1e6, (30 * 5 + 1 * 50) / 1e6
    assert costs.money.tolist() == [[pytest.approx(small), pytest.approx(small + large)]]
    assert costs.last.tolist() == [pytest.approx(large)]
    assert costs.output.tolist() == [10 / 1e6]


def test_a_streaming_run_pays_for_one_elicitation() -> None:
    def probed(prompt: int | None, again: int | None) -> Step:
        probe = Probe(answer="1", correct=True, tokens=4, prompt_tokens=again)
        return replace(step(*[0.1] * 10), prompt_tokens=prompt, probe=probe)

    run = replace(trace(probed(5, 17), probed(0, 27), probed(0, 37), shape="streaming"), model="small")
    costs = costs_of([run], PRICES)
    # The prompt once, the segments, and one elicitation that reads all of it again.
    expected = [5 + 17 + 14 * 10, 5 + 27 + 24 * 10, 5 + 37 + 34 * 10]
    assert costs.money[0].tolist() == pytest.approx([cost / 1e6 for cost in expected])
    # A rule that looks at each step's answer reads all of it again each time.
    assert costs.looks[0].tolist() == pytest.approx([0.0, 17 / 1e6, (17 + 27) / 1e6])
    many = [replace(run, id=str(number)) for number in range(20)]
    results = evaluate(many, prices=PRICES, rules="answer-convergence:3,all-steps", draws=2).rules
    looking = 5 + 17 + 27 + 37 + (34 + 4 + 4) * 10
    assert results["answer-convergence:3"].cost == pytest.approx(20 * looking / 1e6)
    assert results["all-steps"].cost == pytest.approx(20 * expected[-1] / 1e6)
    # A stream that was cut tells no prompt: then it is what the first elicitation read beyond the segment.
    cut = replace(run, steps=(probed(None, 17), probed(None, 27)))
    assert costs_of([cut], PRICES).money[0, 1] == pytest.approx((17 - 10 + 27 + 24 * 10) / 1e6)
    with pytest.raises(InputError, match="step 1 does not say"):
        costs_of([replace(run, steps=(probed(None, None),))], PRICES)
    with pytest.raises(InputError, match="the probe after step 1 does not say"):
        costs_of([replace(run, steps=(probed(5, None),))], PRICES)


def test_savings_in_money_and_time_stand_beside_tokens() -> None:
    traces = [cascade(f"s{n}", bits=0.1, correct=True) for n in range(30)]
    traces += [cascade(f"w{n}", bits=0.9, correct=False) for n in range(30)]
    results = evaluate(traces, prices=PRICES, rules="always-one-step,all-steps,oracle", draws=5)
    oracle = results.rules["oracle"]
    small, large = 30 / 1e6, 200 / 1e6
    assert oracle.cost == pytest.approx(60 * small + 30 * large)
    assert oracle.cost_saving is not None
    assert oracle.cost_saving.value == pytest.approx(1 - (60 * small + 30 * large) / (60 * (small + large)))
    assert oracle.cost_saving_vs_last == pytest.approx(1 - (60 * small + 30 * large) / (60 * large))
    assert oracle.latency_saving == pytest.approx(1 - (60 + 30 * 4) / (60 * 5))
    assert results.warnings == ()
    unpriced = evaluate(traces, rules="oracle", draws=5)
    assert "cost differently" in unpriced.warnings[0]
    assert unpriced.rules["oracle"].cost is None


def test_every_form_of_the_results_shows_money_and_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traces = [cascade(f"{n}", bits=0.1 + 0.8 * (n % 2), correct=n % 2 == 0) for n in range(60)]
    path, prices, out = tmp_path / "traces.parquet", tmp_path / "prices.json", tmp_path / "report.md"
    write_traces(traces, path)
    prices.write_text(json.dumps({name: asdict(price) for name, price in PRICES.items()}))
    assert main(["evaluate", str(path), "--draws", "5", "--prices", str(prices)]) == 0
    output = capsys.readouterr().out
    oracle = next(line for line in output.splitlines() if line.startswith("oracle")).split()
    small, large = 30 / 1e6, 200 / 1e6
    saved = {
        "tokens": 1 - (60 + 30) / (60 + 60),
        "money": 1 - (60 * small + 30 * large) / (60 * (small + large)),
        "time": 1 - (60 + 30 * 4) / (60 * 5),
    }
    assert oracle[-4:] == [f"{100 * saved['money']:.1f}", "%", f"{100 * saved['time']:.1f}", "%"]
    assert f"{100 * saved['tokens']:.1f} %" in " ".join(oracle)
    assert main(["report", str(path), "--prices", str(prices), "--out", str(out)]) == 0
    # The figures of a rule stand in the first two tables of rules.
    lines = [line.strip("| ").split(" | ") for line in out.read_text().splitlines()]
    heads, rows = ([line for line in lines if line[0] == name] for name in ("rule", "oracle"))
    figures = {key: value for pair in zip(heads[:2], rows[:2], strict=True) for key, value in zip(*pair, strict=True)}
    assert figures["money saved"].startswith(f"{100 * saved['money']:.1f} % ")
    assert figures["saving"].startswith(f"{100 * saved['tokens']:.1f} % ")
    assert f"{100 * saved['time']:.1f} %" in figures["time saved"]
    assert "cost differently" not in out.read_text()
    assert main(["evaluate", str(path), "--draws", "5"]) == 0
    unpriced = capsys.readouterr().out
    assert "money" not in unpriced
    assert "warning: tokens of large, small are added; they cost differently" in unpriced


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    run = cascade("a", bits=0.1, correct=True)
    with pytest.raises(InputError, match="no price for large"):
        costs_of([run], {"small": Price(1, 1)})
    bare = replace(run, steps=tuple(replace(part, prompt_tokens=None) for part in run.steps))
    with pytest.raises(InputError, match="prompt tokens"):
        costs_of([bare], PRICES)
    free = {name: Price(0.0, price.output) for name, price in PRICES.items()}
    assert costs_of([bare], free).money[0, 0] == pytest.approx(10 / 1e6)
    assert table_of([replace(run, steps=(step(0.1),))], SIGNAL).latency is None
    timed = table_of([run], SIGNAL).latency
    assert timed is not None
    assert timed.tolist() == [[1.0, 5.0]]
    assert table_of([run], SIGNAL).costs is None
    for text in ("nonsense", "[]", "{}", '{"m": {"input": 1}}', '{"m": {"input": -1, "output": 2}}'):
        path = tmp_path / "prices.json"
        path.write_text(text)
        with pytest.raises(InputError, match=r"per million|at least 0"):
            load_prices(path)
    with pytest.raises(InputError, match="cannot read"):
        load_prices(tmp_path / "nowhere.json")
