"""Conversion on Apache Flink: `python -m pipelines.flink --help`."""
