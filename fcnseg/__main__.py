"""Runs a command: `python -m fcnseg --help` lists them."""

from fcnseg.cli.main import main

if __name__ == "__main__":
    main()
