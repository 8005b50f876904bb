"""The commands: `python -m fcnseg COMMAND`, one module each."""
