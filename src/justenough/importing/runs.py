"""The runs of one model: other models are left out, and no run appears twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from justenough.errors import InputError
from justenough.importing.options import ALL, ImportOptions
from justenough.importing.replies import Numbered
from justenough.trace import Trace
from justenough.trace.files import BadLine


def runs_of_one_model(
    items: Iterable[Numbered | BadLine], *, path: Path, options: ImportOptions
) -> Iterator[Trace | BadLine]:
    """The traces of the chosen model, or of the only model, and all bad lines.

    Traces with the same id are runs of one problem if each has a seed of its own; otherwise the later one is a bad
    line. Raises `InputError` at the end if the file has several models and none is named, or not this one.
    """
    model, models = options.chosen, set[str]()
    lines: dict[tuple[str, str, str], dict[int | None, int]] = {}
    for item in items:
        if isinstance(item, BadLine):
            yield item
            continue
        line, trace = item
        models.add(trace.model)
        if options.model != ALL and (len(models) > 1 if model is None else trace.model != model):
            continue
        runs = lines.setdefault((trace.model, trace.task, trace.id), {})
        other = next(iter(runs.values()), None) if trace.seed is None or None in runs else runs.get(trace.seed)
        if other is not None:
            seed = "" if trace.seed is None else f" with the seed {trace.seed}"
            yield BadLine(line, f"the id {trace.id!r}{seed} is also in line {other}: runs need seeds of their own")
            continue
        runs[trace.seed] = line
        yield trace
    named = ", ".join(sorted(models))
    if options.model is None and len(models) > 1:
        raise InputError(f"{path} has {len(models)} models: {named}", hint="--model NAME, or --model all")
    if model is not None and models and model not in models:
        raise InputError(f"{path} has no model {model!r}", hint=f"one of {named}")
