"""The Apache Beam jobs: options, graph, main. What their workers run is in `fcnseg.conversion`."""

import fcnseg.conversion  # noqa: F401  first of all: it imports Beam without Beam's log line
