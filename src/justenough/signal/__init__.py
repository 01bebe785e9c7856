"""The signal: token entropies in bits, how they are pooled into one number, and where a step and a thought end."""
