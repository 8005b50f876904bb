"""Starts what a conversion on Apache Flink needs: `python -m pipelines.flink --help`."""
