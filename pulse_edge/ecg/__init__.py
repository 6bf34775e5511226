"""ECG recordings: read from files, drawn as pages."""
