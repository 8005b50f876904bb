"""The Apache Beam jobs: options, graph, main. What their workers run is in `fcnseg.conversion`."""

import fcnseg.beam.quiet_beam  # noqa: F401  first of all, so that Beam's log line is not seen
