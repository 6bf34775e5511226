"""The bundle: what the export writes and the runtime reads. This room is their only contract."""
