"""Jobs that search for a good configuration: `python -m tuning.search`."""
