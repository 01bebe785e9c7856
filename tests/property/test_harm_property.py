"""Do no harm: through the gateway a client gets what it gets without it, or a valid gated answer.

`JUSTENOUGH_EXAMPLES=5000` tries more examples.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from justenough.gateway.settings import GatewaySettings
from justenough.testing import CONFIDENT, UNSURE, Fault, MockUpstream
from tests.unit.gateway.apis import others
from tests.unit.gateway.serving import running
from tests.unit.gateway.ways import settings_for, settled
from tests.unit.gateway.wild import Seen, seen

EXAMPLES: Final = int(os.environ.get("JUSTENOUGH_EXAMPLES", "200"))
FAULTS: Final = sorted(
    set(Fault)
    # These take long, and have tests of their own.
    - {Fault.STALL_BEFORE_HEADERS, Fault.STALL_IN_STREAM, Fault.ENDLESS, Fault.HUGE_CHUNK}
)
TEXTS: Final = st.sampled_from(["Let me think.\n\n", "So", " 42", ".\n\n", "Wait", "é", "\n\n", '"', "\\"])
UPSTREAMS: Final = st.fixed_dictionaries(
    {
        "thought": st.lists(TEXTS, max_size=8),
        "answer": st.lists(st.sampled_from(["The answer", " is", " 42", ".", "\n"]), min_size=1, max_size=4),
        "engine": st.sampled_from(["vllm", "llama.cpp", "plain"]),
        "reasoning_field": st.sampled_from([None, "reasoning_content", "reasoning"]),
        "logprobs": st.lists(st.sampled_from([CONFIDENT, UNSURE]), min_size=1, max_size=6),
        "logprobs_apart": st.booleans(),
        "tokens_per_event": st.integers(1, 4),
        "limits_kept": st.booleans(),
        "prefill": st.booleans(),
        "fault": st.sampled_from([Fault.NONE, *FAULTS]),
        "fault_at": st.integers(0, 6),
        "fault_from": st.just(1),
    }
)
REQUESTS: Final = st.fixed_dictionaries(
    {"stream": st.booleans()},
    optional={
        "max_tokens": st.integers(1, 12),
        "stop": st.sampled_from(["###", "</think>", ["\n\n"]]),
        "min_tokens": st.integers(0, 20),
        "temperature": st.just(0.5),
        "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
        "n": st.just(1),
    },
)


async def both(mock: MockUpstream, way: str, body: dict[str, Any], path: str) -> list[httpx.Response | None]:
    """The answer without and with the gateway; None where it breaks off."""
    out: list[httpx.Response | None] = []
    async with mock:
        chosen: GatewaySettings = settings_for(way, mock.url)
        async with running(chosen) as gateway, httpx.AsyncClient(timeout=10) as client:
            for url in (mock.url, gateway.url):
                # Each is the first request that the server answers.
                mock.requests = [each for each in mock.requests if b"Say OK." in each.body]
                try:
                    out.append(await client.post(url + path, json=body))
                except httpx.TransportError:
                    out.append(None)
            await settled(gateway)
    return out


def is_complete(answer: Seen | None) -> bool:
    """Whether a client takes it for a whole answer."""
    return answer is not None and answer.status == 200 and answer.finish is not None and not answer.errors


def plain(answer: Seen) -> Seen:
    """An answer without what the mock does not give alike with and without a stream."""
    return answer._replace(errors=0, logprobs={})


@given(UPSTREAMS, REQUESTS, st.sampled_from(["observing", "streaming", "sequential"]), st.sampled_from(["chat/", ""]))
@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
def test_a_client_gets_its_answer_or_a_gated_one(
    upstream: dict[str, Any], request: dict[str, Any], way: str, kind: str
) -> None:
    asks = {"messages": [{"role": "user", "content": "6*7?"}]} if kind else {"prompt": "6*7?"}
    body = {"model": "mock", **asks, **request}
    answers = asyncio.run(both(MockUpstream(**upstream), way, body, f"/v1/{kind}completions"))
    direct, through = (None if answer is None else seen(answer) for answer in answers)
    if direct is not None and direct.status != 200:
        assert through is not None
        assert through.status == direct.status
    elif direct is not None and is_complete(direct) and (way == "observing" or through == direct):
        assert through is not None
        assert plain(through) == plain(direct)
    elif is_complete(direct) or is_complete(through):
        # A gated answer, or one that has gone round the fault.
        assert through is not None
        assert is_complete(through)
        answer = "".join(upstream["answer"]).strip()
        # Bytes that are not UTF-8 are shown as U+FFFD, wherever the upstream put them.
        assert through.text.replace("\ufffd", "").strip().endswith(answer) or through.finish == "length"
    elif direct is not None and through is not None and request["stream"] and through.status == 200:
        assert through.text == direct.text or way == "sequential"


LIMITS: Final[dict[str, Any]] = {
    "/v1/responses": {"max_output_tokens": 4},
    "/v1/messages": {"max_tokens": 4},
    "/api/chat": {"options": {"num_predict": 4}},
    "/api/generate": {"options": {"num_predict": 4}},
}


def other(path: str, answer: httpx.Response | None) -> others.Seen | None:
    """What a client of another API reads; None if the answer is not complete."""
    try:
        values = [] if answer is None else others.values_of(path, answer)
        has_error = any(value.get("error") or value.get("type") == "error" for value in values)
        view = None if answer is None or has_error else others.seen(path, answer)
    except (ValueError, LookupError, AssertionError, TypeError, AttributeError):
        return None
    return None if view is None or view.finish is None else view._replace(report=None)


@given(
    UPSTREAMS,
    st.sampled_from(sorted(LIMITS)),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["observing", "streaming", "sequential"]),
)
@settings(deadline=None, max_examples=EXAMPLES // 2, suppress_health_check=[HealthCheck.too_slow])
def test_a_client_of_another_api_gets_its_answer_or_a_gated_one(
    upstream: dict[str, Any], path: str, stream: bool, limited: bool, way: str
) -> None:
    mock = MockUpstream(**{**upstream, "engine": "ollama"} if others.is_ollama(path) else upstream)
    body = {**others.REQUESTS[path], "stream": stream, **(LIMITS[path] if limited else {})}
    direct, through = asyncio.run(both(mock, way, body, path))
    seen_direct, seen_through = other(path, direct), other(path, through)
    if direct is not None and direct.status_code != 200:
        assert through is not None
        assert (through.status_code, through.content) == (direct.status_code, direct.content)
    elif way == "observing" and not others.is_ollama(path) and direct is not None and through is not None:
        assert through.content == direct.content
    elif seen_direct is not None:
        assert seen_through is not None
        if way == "observing":
            assert seen_through == seen_direct
        elif seen_through != seen_direct:
            lengths = ("length", "max_tokens", "incomplete")
            answer = "".join(upstream["answer"]).strip()
            assert seen_through.text.strip().endswith(answer) or seen_through.finish in lengths
