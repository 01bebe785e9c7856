"""`transformers_stop` on the embedded model in Hugging Face form: real calls of `generate`, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import justenough
from justenough import Calibration, Signal, SignalMismatch
from justenough.backends.transformers import TransformersBackend
from justenough.errors import InputError, ModelMismatch
from justenough.gate import GateSettings, decisions
from justenough.grading import Problem, open_grader
from justenough.integrations.transformers.stop import TransformersStop
from justenough.runner import Run, Runner, RunSettings
from justenough.signal.thought import ThoughtFormat
from justenough.toy.notation import PROMPTS
from tests.unit.gateway.serving import calibration_of
from tests.unit.test_how_to import FOLDER as PAGES
from tests.unit.test_how_to import blocks

FOLDER = Path(__file__).parents[4] / "models" / "embedded"
PROBLEMS = ("80+19", "45+27", "99-98")
"""At 0.005 bits, the first two stop after their second and first step; the last one does not stop."""
TOP = Signal(splitter="paragraph", logits="raw", temperature=0.0)
FULL = replace(TOP, top_k=282, tail="full")


def calibration(signal: Signal = TOP, threshold: float | None = 0.005) -> Calibration:
    base = calibration_of(threshold, model="justenough-embedded")
    return replace(base, signal=signal, prompts=PROMPTS)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(FOLDER, local_files_only=True, padding_side="left")


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    return transformers.AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True, dtype=torch.float32).eval()


def inputs(tokenizer: Any, problems: Sequence[str] = PROBLEMS, *, after: str = "") -> dict[str, Any]:
    prompts = [f"<|user|>{problem}<|end|><|assistant|>{after}" for problem in problems]
    encoded = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def answers(tokenizer: Any, generated: Any) -> list[str]:
    """The text after each prompt, without the padding after its end."""
    texts = [tokenizer.decode(row) for row in generated]
    return [text.partition("<|assistant|>")[2].partition("<|end|>")[0] for text in texts]


def test_each_sequence_is_closed_at_its_own_step_and_its_answer_follows(model: Any, tokenizer: Any) -> None:
    stop = justenough.transformers_stop(calibration(), tokenizer)
    sent = inputs(tokenizer)
    plain = answers(tokenizer, model.generate(**sent, do_sample=False, max_new_tokens=150))
    gated = answers(tokenizer, model.generate(**sent, do_sample=False, max_new_tokens=150, **stop))
    places = [2, 1, None]
    for text, whole, place in zip(gated, plain, places, strict=True):
        steps = whole.split("\n\n")
        kept = whole if place is None else "\n\n".join([*steps[:place], "</think>"])
        assert text.startswith(kept)
        assert text.removeprefix(kept).startswith("" if place is None else "Answer: ")
    assert [report["decision"] for report in stop.reports] == ["stopped", "stopped", "finished"]
    assert [report["step"] for report in stop.reports[:2]] == places[:2]
    assert gated[2] == plain[2]
    # The tag is forced, so it is not counted: the tokens are those of the text without it.
    ids = tokenizer(gated[0].replace("</think>", ""), add_special_tokens=False)["input_ids"]
    assert stop.reports[0]["tokens"] == len(ids)
    assert stop.reports[0]["probe_tokens"] == len(tokenizer("Answer: 99", add_special_tokens=False)["input_ids"])


def test_a_sequence_of_a_batch_has_the_report_that_it_has_alone(model: Any, tokenizer: Any) -> None:
    stop = justenough.transformers_stop(calibration(), tokenizer)
    model.generate(**inputs(tokenizer), do_sample=False, max_new_tokens=150, **stop)
    together = stop.reports
    for problem, report in zip(PROBLEMS, together, strict=True):
        model.generate(**inputs(tokenizer, [problem]), do_sample=False, max_new_tokens=150, **stop)
        assert_same(rows(stop.reports[0]), rows(report))


def rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    return list(report["decisions"])


def assert_same(ours: list[dict[str, Any]], theirs: Sequence[Any]) -> None:
    """The same decisions, with bits that are equal to the rounding of single precision."""
    exact = ("step", "action", "reason", "tokens")
    values = [
        one if isinstance(one, dict) else {key: getattr(one, key) for key in (*exact, "entropy")} for one in theirs
    ]
    assert [[row[key] for key in exact] for row in ours] == [[row[key] for key in exact] for row in values]
    assert [row["entropy"] for row in ours] == pytest.approx([row["entropy"] for row in values], abs=1e-5)


@pytest.mark.parametrize(
    "signal",
    [
        TOP,
        FULL,
        replace(TOP, pooling="surprisal"),
        replace(TOP, splitter="tokens:7"),
    ],
    ids=["top 20", "full", "log-probabilities", "tokens"],
)
def test_decisions_equal_those_of_the_runner_and_of_replay(model: Any, tokenizer: Any, signal: Signal) -> None:
    given = calibration(signal, 0.005)
    gate = replace(GateSettings.of(given), max_steps=10_000)

    async def live_runs() -> list[Run]:
        backend = TransformersBackend(FOLDER, threads=1)
        settings = RunSettings(
            shape="streaming",
            splitter=signal.splitter,
            temperature=0.0,
            top_k=signal.top_k or 20,
            max_tokens=150,
            max_steps=10_000,
        )
        runner = Runner(backend, settings, grader=open_grader("number"), gate=gate)
        problems = [Problem(id=problem, problem=problem, target="", task="t") for problem in PROBLEMS]
        try:
            return list(await asyncio.gather(*(runner.run(problem) for problem in problems)))
        finally:
            await backend.close()

    stop = justenough.transformers_stop(given, tokenizer)
    generated = model.generate(**inputs(tokenizer), do_sample=False, max_new_tokens=150, **stop)
    texts = answers(tokenizer, generated)
    for live, text, report in zip(asyncio.run(live_runs()), texts, stop.reports, strict=True):
        stopped = report["decision"] == "stopped"
        # The end of a thought that ended by itself is one more step of the trace, on which nothing was decided.
        replayed = decisions(live.trace.steps, gate)[: len(rows(report))]
        assert_same(rows(report), replayed)
        if stopped:
            assert_same(rows(report), live.decisions)
        if stopped and signal.splitter == "paragraph":
            assert live.trace.steps[-1].answer == text.partition("Answer: ")[2]


def test_a_prompt_that_opens_the_thought_is_recognised(model: Any, tokenizer: Any) -> None:
    given = replace(calibration(), prompts=replace(PROMPTS, thought=ThoughtFormat()))
    stop = justenough.transformers_stop(given, tokenizer)
    model.generate(**inputs(tokenizer, ["45+27"], after="<think>"), do_sample=False, max_new_tokens=150, **stop)
    assert stop.reports[0]["decision"] == "stopped"
    assert stop.reports[0]["thought_tokens"] != 0


def test_padding_on_the_right_does_not_hide_that_the_prompt_opens_the_thought(model: Any) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER, local_files_only=True, padding_side="right")
    given = replace(calibration(), prompts=replace(PROMPTS, thought=ThoughtFormat()))
    stop = justenough.transformers_stop(given, tokenizer)
    sent = inputs(tokenizer, ["45+27", "45+27+45+27+45+27"], after="<think>")
    model.generate(**sent, do_sample=False, max_new_tokens=20, **stop)
    assert all(report["thought_tokens"] != 0 for report in stop.reports)


def test_a_call_that_is_refused_leaves_no_reports_of_the_one_before(model: Any, tokenizer: Any) -> None:
    stop = justenough.transformers_stop(calibration(), tokenizer)
    model.generate(**inputs(tokenizer), do_sample=False, max_new_tokens=2, **stop)
    with pytest.raises(InputError):
        model.generate(**inputs(tokenizer), do_sample=False, max_new_tokens=2, num_beams=2, **stop)
    assert stop.reports == []


def test_sampled_sequences_of_one_prompt_have_a_gate_each(model: Any, tokenizer: Any) -> None:
    stop = justenough.transformers_stop(calibration(replace(TOP, temperature=1.5)), tokenizer)
    torch.manual_seed(0)
    options = {"do_sample": True, "temperature": 1.5, "num_return_sequences": 6, "top_k": 20}
    generated = model.generate(**inputs(tokenizer, ["99-98"]), max_new_tokens=150, **options, **stop)
    assert len(stop.reports) == len(generated) == 6
    assert len({str(rows(report)) for report in stop.reports}) > 1


def test_a_thought_that_fills_the_limit_is_not_reported_as_stopped(model: Any, tokenizer: Any) -> None:
    whole = justenough.transformers_stop(calibration(), tokenizer)
    sent = inputs(tokenizer, ["45+27"])
    model.generate(**sent, do_sample=False, max_new_tokens=150, **whole)
    stop = justenough.transformers_stop(calibration(), tokenizer)
    length = int(str(whole.reports[0]["thought_tokens"]))
    model.generate(**sent, do_sample=False, max_new_tokens=length, **stop)
    assert (stop.reports[0]["decision"], stop.reports[0]["tokens"]) == ("finished", length)


def test_without_a_threshold_nothing_changes(model: Any, tokenizer: Any) -> None:
    stop = justenough.transformers_stop(calibration(threshold=None), tokenizer)
    sent = inputs(tokenizer)
    plain = model.generate(**sent, do_sample=False, max_new_tokens=60)
    assert torch.equal(plain, model.generate(**sent, do_sample=False, max_new_tokens=60, **stop))


def test_a_streamer_and_a_dictionary_of_outputs_work(model: Any, tokenizer: Any) -> None:
    streamer = transformers.TextIteratorStreamer(tokenizer, skip_prompt=True)
    stop = justenough.transformers_stop(calibration(), tokenizer, streamer=streamer)
    options = {"do_sample": False, "max_new_tokens": 150, "return_dict_in_generate": True, "output_logits": True}
    out = model.generate(**inputs(tokenizer, ["45+27"]), **options, **stop)
    assert "".join(streamer).startswith("<think>45+27=72\n\n</think>Answer: 72")
    assert len(out.logits) == out.sequences.shape[1] - inputs(tokenizer, ["45+27"])["input_ids"].shape[1]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"num_beams": 2}, "beam search"),
        ({"prompt_lookup_num_tokens": 3}, "assisted generation"),
        ({"cache_implementation": "paged"}, "continuous batching"),
    ],
)
def test_what_the_gate_cannot_follow_is_refused(
    model: Any, tokenizer: Any, options: dict[str, object], what: str
) -> None:
    stop = justenough.transformers_stop(calibration(), tokenizer)
    with pytest.raises(InputError, match=f"a thought cannot be stopped in {what}"):
        model.generate(**inputs(tokenizer), do_sample=False, max_new_tokens=9, **options, **stop)


def test_an_assistant_and_generate_batch_are_refused(model: Any, tokenizer: Any) -> None:
    stop = justenough.transformers_stop(calibration(), tokenizer)
    with pytest.raises(TypeError, match="assistant_model"):
        model.generate(**inputs(tokenizer), assistant_model=model, **stop)
    with pytest.raises(InputError, match="continuous batching"):
        model.generate_batch(inputs=[[278, 280]], **stop)


def test_another_temperature_or_model_is_refused(model: Any, tokenizer: Any) -> None:
    def generate(stop: TransformersStop) -> None:
        model.generate(**inputs(tokenizer), do_sample=False, max_new_tokens=9, **stop)

    with pytest.raises(SignalMismatch, match=r"temperature 0\.0 is not the calibration's 0\.8"):
        generate(justenough.transformers_stop(calibration(replace(TOP, temperature=0.8)), tokenizer))
    other = replace(calibration(), model="another")
    with pytest.raises(ModelMismatch, match="is for another"):
        generate(justenough.transformers_stop(other, tokenizer))
    generate(justenough.transformers_stop(other, tokenizer, models=("embedded",)))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"shape": "sequential"}, "sequential steps"),
        ({"signal": replace(TOP, logits="processed")}, "processed logits"),
        ({"signal": Signal(kind="1 - confidence", top_k=None)}, "1 - confidence"),
    ],
)
def test_a_calibration_of_another_signal_is_refused(tokenizer: Any, change: dict[str, Any], what: str) -> None:
    with pytest.raises(SignalMismatch, match=what):
        justenough.transformers_stop(replace(calibration(), **change), tokenizer)


def test_something_else_than_a_calibration_or_a_tokenizer_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"'calibration.json' is no calibration \(justenough.load_calibration"):
        justenough.transformers_stop("calibration.json", tokenizer)  # type: ignore[arg-type]
    for other in (None, "Qwen/Qwen3-8B"):
        with pytest.raises(InputError, match="cannot decode token by token"):
            justenough.transformers_stop(calibration(), other)


def test_a_text_in_place_of_names_or_of_a_format_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"models is 'a' \(models=\('a',\)\)"):
        justenough.transformers_stop(calibration(), tokenizer, models="a")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'think' is no format of a thought"):
        justenough.transformers_stop(calibration(), tokenizer, thought="think")  # type: ignore[arg-type]


def test_the_raw_logits_that_the_user_gets_are_those_of_the_model(model: Any, tokenizer: Any) -> None:
    stop = justenough.transformers_stop(calibration(), tokenizer)
    sent = inputs(tokenizer, PROBLEMS[:1])
    options = {"do_sample": False, "max_new_tokens": 60, "return_dict_in_generate": True, "output_logits": True}
    out = model.generate(**sent, **options, **stop)
    assert stop.reports[0]["decision"] == "stopped"
    with torch.no_grad():
        whole = model(out.sequences).logits[0, sent["input_ids"].shape[1] - 1 : -1]
    assert torch.allclose(torch.cat(out.logits), whole, atol=1e-4)


def test_a_sampling_temperature_of_none_is_one(model: Any, tokenizer: Any) -> None:
    one = replace(calibration(), signal=replace(TOP, temperature=1.0))
    stop = justenough.transformers_stop(one, tokenizer)
    model.generate(**inputs(tokenizer), do_sample=True, temperature=None, max_new_tokens=3, **stop)
    assert len(stop.reports) == len(PROBLEMS)


def test_the_example_of_the_page_runs(
    model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    replace(calibration(), signal=replace(TOP, temperature=0.6)).save("calibration.json")
    (example,) = blocks(PAGES / "transformers.md", "python")
    known = {"justenough": justenough, "model": model, "tokenizer": tokenizer, "inputs": inputs(tokenizer, ["80+19"])}
    exec(example.replace("4096", "40"), known)
    assert "'thought_tokens'" in capsys.readouterr().out
