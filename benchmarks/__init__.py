"""Tasks, victims, suites and speed benchmarks."""
