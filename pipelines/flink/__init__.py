"""Conversion on Apache Flink: `fcnseg flink --help`."""
