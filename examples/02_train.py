"""Records to a network: a short training, validated on whole volumes.

Run after 01_convert.py: `python -m examples.02_train`.
"""

from pathlib import Path

from examples import SHORT
from fcnseg.config import override, read_config
from fcnseg.training import train

WORK = Path("build/examples")


def main() -> None:
    # A preset, or a YAML file; every value is checked when it is set.
    config = override(read_config("demo"), SHORT)
    result = train(config, WORK / "records", WORK / "run")
    print(f"validation Dice {result.best_dice:.3f} after epoch {result.best_epoch}")
    print("in the run folder:", sorted(path.name for path in result.run_dir.iterdir()))


if __name__ == "__main__":
    main()
