"""The signal: token entropies in bits, how they are pooled into one number, and where a step ends."""

from justenough.signal.entropy import RunningEntropy, sequence_entropy, token_entropy
from justenough.signal.signal import Signal

__all__ = ["RunningEntropy", "Signal", "sequence_entropy", "token_entropy"]
