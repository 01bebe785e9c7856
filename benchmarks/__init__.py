"""Each claim's command: prints a table and writes JSON into benchmarks/results/."""
