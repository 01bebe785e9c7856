"""What the recorded answers of many models say, part by part; `python -m benchmarks.records` runs them all."""
