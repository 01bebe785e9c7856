"""`justenough exits`.

A model in Hugging Face form (Llama, Qwen2, Qwen3) learns early exits: heads behind some of its layers, with which a
sure token leaves the network early. `train` trains them on texts, and the model itself stays as it is. `certify` finds
the boldest threshold that harms at most a given share of problems, by CALM's Learn-then-Test. Then solve, collect and
diagnose take --model hf:PATH --exits DIR. A table shows how many layers and how much work a threshold saves: a head
costs as much as several layers, so layers can be saved while the work grows.

`look-ahead` learns the entropy above which AdaDec (--model adadec:hf:PATH) pauses, from right answers in traces.
"""

from __future__ import annotations

import argparse
import shlex
from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

from justenough.cli import arguments, paths
from justenough.cli.terminal import print_json, say, show
from justenough.stats.text import percent, table

if TYPE_CHECKING:
    from pathlib import Path

    from justenough.backends.layers.training import Training
    from justenough.backends.transformers import Checkpoint
    from justenough.runner.exits import Tried

_DEFAULT: Final = "default: offramps in the model's folder"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the three actions."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, help="train, certify or look-ahead")
    _add_train(actions.add_parser("train", help="train exits on texts"))
    _add_certify(actions.add_parser("certify", help="certify a threshold on problems of their own"))
    _add_look_ahead(actions.add_parser("look-ahead", help="learn AdaDec's threshold from traces"))


def _add_model(parser: argparse.ArgumentParser) -> None:
    option = arguments.add_option
    option(parser, "--model", type=paths.folder, metavar="PATH", required=True, help="folder in Hugging Face form")
    arguments.add_loading(parser)
    option(parser, "--threads", type=int, metavar="N", help="CPU threads (default: torch's)")
    arguments.add_json(parser)


def _add_train(parser: argparse.ArgumentParser) -> None:
    option = arguments.add_option
    texts = 'JSON Lines with "text" or "messages", or a .txt file with one text on each line'
    option(parser, "--texts", type=paths.input_file, metavar="FILE", required=True, help=texts)
    option(parser, "--out", type=paths.folder, metavar="DIR", help=f"folder of the exits ({_DEFAULT})")
    option(parser, "--every", default=4, metavar="N", help="an exit behind every N-th layer")
    shared = "use the model's own head at each exit, behind a small map: far less memory, the same work"
    arguments.add_flag(parser, "--shared-head", help=shared)
    option(parser, "--tokens", default=200_000, metavar="N", help="train on this many tokens")
    option(parser, "--batch-tokens", default=1_000, metavar="N", help="tokens of one update")
    option(parser, "--rate", default=1e-3, metavar="R", help="highest learning rate")
    targets = "learn the model's own distribution (backbone), or the next tokens of the texts (labels)"
    option(parser, "--targets", choices=("backbone", "labels"), default="backbone", help=targets)
    arguments.add_seed(parser, help="seed of the order of the texts")
    _add_model(parser)


def _add_certify(parser: argparse.ArgumentParser) -> None:
    option = arguments.add_option
    option(parser, "--exits", type=paths.folder, metavar="DIR", help=f"folder of the exits ({_DEFAULT})")
    option(parser, "--tasks", type=paths.name_or_file, metavar="NAME|FILE", required=True, help=arguments.TASKS)
    grader = "how answers are graded: exact, number, choice, math, json or module:function"
    option(parser, "--grader", default="exact", metavar="NAME", help=grader)
    option(parser, "--limit", type=int, metavar="N", help="use the first N problems")
    measure = "what decides whether a token exits: CALM's three measures, or DeeBERT's entropy"
    choices = ("softmax", "saturation", "classifier", "entropy")
    option(parser, "--measure", choices=choices, default="softmax", help=measure)
    option(parser, "--max-harm", default=0.05, metavar="P", help="largest risk that is certified")
    risk = "harm: a right answer becomes wrong; answers: the answer differs from the whole network's"
    option(parser, "--risk", choices=("harm", "answers"), default="harm", help=risk)
    option(parser, "--confidence", default=0.95, metavar="P", help="confidence of the certificate")
    option(parser, "--steps", default=1, metavar="K", help="sequential steps of each problem")
    option(parser, "--temperature", default=0.6, metavar="T", help="sampling temperature")
    option(parser, "--max-tokens", default=512, metavar="N", help="token limit of one completion")
    arguments.add_seed(parser, default=1, help="seed of the sampling")
    arguments.add_concurrency(parser, default=16)
    option(parser, "--prompts", metavar="NAME", help="general, opened or a plug-in's (default: by the model)")
    _add_model(parser)


def _add_look_ahead(parser: argparse.ArgumentParser) -> None:
    option = arguments.add_option
    arguments.add_traces(parser)
    option(
        parser,
        "--out",
        type=paths.LOOK_AHEAD,
        metavar="FILE",
        help="file (default: adadec.json in the model's folder)",
    )
    _add_model(parser)


def run(options: argparse.Namespace) -> int:
    """Run one of the actions."""
    return {"train": _train, "certify": _certify, "look-ahead": _look_ahead}[options.action](options)


def _checkpoint(options: argparse.Namespace) -> Checkpoint:
    from justenough.backends.transformers import Checkpoint, Loading

    loading = Loading(options.dtype, options.device)
    return Checkpoint(options.model, prompts=None, thought=None, threads=options.threads, loading=loading)


def _train(options: argparse.Namespace) -> int:
    from justenough.errors import InputError

    if min(options.tokens, options.batch_tokens) < 1 or not options.rate > 0:
        raise InputError("tokens, batch tokens and rate must be above 0", hint="leave them out for the defaults")
    if options.out is not None and (options.out / "config.json").exists():
        raise InputError(f"{options.out} holds a model; exits would overwrite its weights", hint="choose another --out")
    checkpoint = _checkpoint(options)
    from justenough.backends.layers import training
    from justenough.backends.layers.ramps import FOLDER, check_kind
    from justenough.files import require_writable

    check_kind(checkpoint.network, options.model)
    texts = training.read_texts(options.texts, checkpoint)
    cut = len(texts) - max(1, len(texts) // 10)
    ramps = training.new_exits(options.model, checkpoint, every=options.every, shared_head=options.shared_head)
    out = options.out or options.model / FOLDER
    require_writable(out)
    control = list(training.batches(texts[cut:], batch_tokens=options.batch_tokens, seed=None))
    begun = training.agreement(checkpoint.network, ramps, control)
    how: Training = training.Training(
        tokens=options.tokens,
        batch_tokens=options.batch_tokens,
        peak=options.rate,
        warm_up=10,
        targets=options.targets,
        seed=options.seed,
        every=10,
    )
    source = training.batches(texts[:cut], batch_tokens=options.batch_tokens, seed=options.seed)
    training.train(
        checkpoint.network,
        ramps,
        source,
        how,
        lambda seen, loss: say(f"exits: {seen} of {options.tokens} tokens, loss {loss:.4f}"),
    )
    done = training.agreement(checkpoint.network, ramps, control)
    ramps.settings = replace(ramps.settings, tokens=options.tokens, agreement=done)
    ramps.save(out)
    if options.json:
        print_json({"out": str(out), "layers": list(ramps.settings.layers), "agreement": list(done)})
        return 0
    rows = [
        [str(layer), percent(before), percent(after)]
        for layer, before, after in zip(ramps.settings.layers, begun, done, strict=True)
    ]
    head = ["layer", "agrees before", "agrees after"]
    show(f"{table(head, rows)}\nexits in {out}; agreement with the whole network on {len(texts) - cut} other texts")
    show(f"next: justenough exits certify --model {options.model} --exits {out} --tasks FILE --grader NAME")
    return 0


def _certify(options: argparse.Namespace) -> int:
    from justenough.backends.layers.backend import LayerExitBackend
    from justenough.backends.layers.certificate import write_certificates
    from justenough.backends.transformers import Loading
    from justenough.errors import InputError
    from justenough.files import require_writable
    from justenough.grading import open_grader, read_tasks
    from justenough.runner import RunSettings
    from justenough.runner.exits import ExitTrial, check_size

    problems = read_tasks(options.tasks, limit=options.limit)
    if options.risk == "harm" and any(problem.target is None for problem in problems):
        raise InputError("harm is about right answers, and some problems have none", hint="--risk answers needs none")
    check_size(len(problems), level=options.max_harm, confidence=options.confidence)
    settings = RunSettings(
        max_steps=options.steps, max_tokens=options.max_tokens, temperature=options.temperature, seed=options.seed
    )
    backend = LayerExitBackend(
        options.model,
        None,
        exits=options.exits,
        concurrency=options.concurrency,
        prompts=options.prompts,
        threads=options.threads,
        loading=Loading(options.dtype, options.device),
    )
    require_writable(backend.exits)
    with closing(open_grader(options.grader)) as grader:
        trial = ExitTrial(backend, problems, grader=grader, settings=settings, report=lambda one: say(_line(one)))
        with closing(trial):
            found = trial.certify(
                options.measure, risk=options.risk, level=options.max_harm, confidence=options.confidence
            )
    if options.risk == "harm" and not trial.right:
        say("warning: the whole network has no problem right, so nothing could be harmed")
    if found is not None:
        scope = backend.scope_of(
            task=problems[0].task,
            temperature=options.temperature,
            steps=options.steps,
            max_tokens=options.max_tokens,
            risk=options.risk,
        )
        write_certificates(backend.exits, options.measure, [found], scope=scope)
    if options.json:
        print_json(
            {
                "problems": len(problems),
                "right": trial.right,
                "tried": [asdict(one) for one in trial.tried],
                "certificate": None if found is None else asdict(found),
            }
        )
        return 0 if found is not None else 1
    head = ["threshold", "layers", "layers saved", "work saved", "right", "differ", "harmed"]
    show(table(head, [_cells(one) for one in trial.tried]))
    show(f"the whole network: {trial.right} of {len(problems)} right")
    risk = f"{options.risk} at most {percent(options.max_harm)}, confidence {percent(options.confidence)}"
    if found is None:
        show(f"no threshold passes ({risk}); nothing was written")
        return 1
    show(f"certified: {options.measure}@{found.setting} ({risk}); written to {backend.exits}")
    show(f"next: {_next_run(options, backend.exits)} --tasks FILE --out FILE")
    return 0


def _next_run(options: argparse.Namespace, exits: Path) -> str:
    """The command of a run inside the scope of the certificate, without its files."""
    given = {
        "--model": f"hf:{options.model}",
        "--exits": exits,
        "--leave": options.measure,
        "--shape": "sequential",
        "--steps": options.steps,
        "--temperature": options.temperature,
        "--max-tokens": options.max_tokens,
        "--dtype": options.dtype,
        "--device": options.device,
        "--grader": options.grader,
        "--prompts": options.prompts,
    }
    words = [str(word) for pair in given.items() if pair[1] is not None for word in pair]
    return shlex.join(["justenough", "collect", *words])


def _cells(tried: Tried) -> list[str]:
    saved = (percent(tried.layers_saved), percent(tried.work_saved, sign=True))
    counts = (str(tried.right), str(tried.differ), str(tried.harmed))
    return [str(tried.threshold), f"{tried.layers:.2f}", *saved, *counts]


def _line(tried: Tried) -> str:
    return (
        f"exits: threshold {tried.threshold}: {tried.layers:.2f} layers a token, {tried.differ} answers differ,"
        f" {tried.harmed} harmed"
    )


def _look_ahead(options: argparse.Namespace) -> int:
    import json

    from justenough.files import is_stdout, require_writable, write_text

    checkpoint = _checkpoint(options)
    from justenough.backends.look_ahead import learn, learned_file, positions

    out = options.out or learned_file(options.model)
    if not is_stdout(out):
        require_writable(out.parent)
    traces = arguments.open_traces(options)
    learned = learn(*positions(checkpoint, traces.plain()))
    arguments.say_skipped(traces)
    write_text(out, json.dumps(asdict(learned), indent=2) + "\n")
    if options.json:
        print_json({"out": str(out), **asdict(learned)})
        return 0
    edge = "; this is the edge of the grid" if learned.probability in (0.01, 0.99) else ""
    show(
        f"{learned.threshold:.4f} bits, at a chance of {learned.probability:.2f}{edge}\n"
        f"{learned.misranked} of {learned.positions} tokens are not ranked first;"
        f" {percent(learned.accuracy)} of those held out are classified correctly\n"
        f"written to {out}\nnext: justenough collect --model adadec:hf:{options.model} --tasks FILE --out FILE"
    )
    return 0
