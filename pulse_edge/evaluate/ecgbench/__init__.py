"""ECGBench: the benchmark that PULSE was measured on, run and scored."""
