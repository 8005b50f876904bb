"""The Apache Beam jobs: options, graph, main. Code for workers is in `fcnseg.conversion`."""

import fcnseg.beam.quiet_beam  # noqa: F401  first, to suppress Beam's log line
