"""A search for better settings: each trial is a training like any other.

Run after 01_convert.py: `python -m examples.03_search`.
"""

from pathlib import Path

from examples import SHORT
from fcnseg.config import override, read_config
from tuning.search import SearchCommand

WORK = Path("build/examples")


def main() -> None:
    # As `fcnseg search --data ... --config demo --space examples/space.yaml ...` does.
    SearchCommand(
        data=WORK / "records",
        config=override(read_config("demo"), {**SHORT, "training.epochs": 1}),
        space=Path(__file__).parent / "space.yaml",
        max_trials=2,
        output=WORK / "search",
    ).run()
    print("best:", read_config(WORK / "search/best.yaml").training.learning_rate)


if __name__ == "__main__":
    main()
