"""A gated client of the `openai` library before llama.cpp's own server, without a gateway between them."""

from __future__ import annotations

from dataclasses import replace

import openai

import justenough
from justenough.toy.notation import PROMPTS
from tests.e2e.gateway.through import ANYTHING, MODEL
from tests.unit.gateway.serving import calibration_of


def test_the_three_lines_stop_a_thought_of_a_real_server(llama_server: str) -> None:
    calibration = replace(calibration_of(ANYTHING, model=MODEL, temperature=0.0), prompts=PROMPTS)
    with justenough.gated(openai.OpenAI(base_url=f"{llama_server}/v1", api_key="none"), calibration) as client:
        reply = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "47*36"}], temperature=0.0
        )
        stream = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "12*34"}], temperature=0.0, stream=True
        )
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    text = reply.choices[0].message.content
    assert text is not None
    assert text.startswith("<think>47*36=")
    assert text.count("\n\n") == 1
    assert text.endswith("\n\n</think>Answer: 1692")
    assert streamed.endswith("\n\n</think>Answer: 408")
    report = (reply.model_extra or {})["justenough"]
    assert (report["decision"], report["step"]) == ("stopped", 1)
