"""Run one problem under a gate or a live rule: think a step, decide, extend or stop, elicit the answer.

*Sequential*: a step is a whole completion; the next step sees the earlier attempts. *Streaming*: a step is a segment of
one long thought; on a stop the generation is really cancelled, the thought is closed, and the answer is elicited. The
same code records all steps (a gate without threshold never stops) and runs live, so a replay equals the live run.
"""

from justenough.runner.branching import Branching, branching_named
from justenough.runner.runner import Run, Runner, equals_replay, signal_of
from justenough.runner.settings import Extend, Observer, RunSettings
from justenough.runner.walk import majority

__all__ = [
    "Branching",
    "Extend",
    "Observer",
    "Run",
    "RunSettings",
    "Runner",
    "branching_named",
    "equals_replay",
    "majority",
    "signal_of",
]
