"""Jobs that publish and serve a trained network: export, a local server, and a client."""
