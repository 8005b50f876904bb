"""The Apache Beam jobs: options, graph, main. Code for workers is in `fcnseg.conversion`."""
