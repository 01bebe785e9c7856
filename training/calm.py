"""Certifies CALM's margins for the embedded model by Learn-then-Test: `python -m training.calm`.

It is `justenough exits certify` on the calibration split, at several levels: one step for each problem at temperature
0.8, and the risk is the share of problems whose answer differs from that of the whole network.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from justenough.backends.layers.backend import LayerExitBackend
from justenough.backends.layers.certificate import write_certificates
from justenough.grading import Exact, read_tasks
from justenough.runner import RunSettings
from justenough.runner.exits import ExitTrial
from training.tokenizer import belongs_to

ROOT: Final = Path(__file__).parent.parent
LEVELS: Final = (0.02, 0.05, 0.1, 0.2)
SEED: Final = 1
"""Seed of the problems and of the noise. Recipes are tried with seed 0."""
CONFIDENCE: Final = 0.95
ROWS: Final = 32


def main(arguments: Sequence[str] | None = None) -> None:
    """Certify each level and write the certificates next to the exits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "embedded", help="folder with exits")
    parser.add_argument("--problems", type=int, default=600)
    options = parser.parse_args(arguments)
    if not belongs_to(options.model):
        parser.error(f"{options.model} has a tokenizer of its own: use justenough exits certify --tasks FILE")
    problems = read_tasks("arithmetic-calibration", limit=options.problems, seed=SEED)
    settings = RunSettings(max_steps=1, temperature=0.8, seed=SEED)
    backend = LayerExitBackend(options.model, None, concurrency=ROWS, threads=1)
    certificates = []
    with closing(ExitTrial(backend, problems, grader=Exact(), settings=settings, report=print)) as trial:
        for level in LEVELS:
            certificate = trial.certify("softmax", risk="answers", level=level, confidence=CONFIDENCE)
            if certificate is None:
                print(f"risk at most {level}: no margin passes")
                continue
            certificates.append(certificate)
            print(
                f"risk at most {level}: margin {certificate.setting}, {certificate.risk:.1%} of {certificate.n} differ"
            )
    scope = backend.scope_of(
        task="arithmetic", temperature=0.8, steps=1, max_tokens=settings.max_tokens, risk="answers"
    )
    write_certificates(backend.exits, "softmax", certificates, scope=scope)


if __name__ == "__main__":
    main()
