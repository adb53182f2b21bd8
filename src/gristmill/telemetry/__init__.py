"""Telemetry: log, metrics, progress. Nothing here may ever stop the work it reports on."""
