"""The page of all benchmarks: results/*.jsonl become one HTML file that needs nothing else."""
