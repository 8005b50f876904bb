"""The card of an exported model: data, classes, results, intended use and limits."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from fcnseg import __version__
from fcnseg.runs import ModelInfo, Run
from fcnseg.saved_model.dice_lost import Int8Dice

CARD_FILE = "model_card.md"
CARD_JSON_FILE = "model_card.json"

INTENDED_USE = "Research on CT of the abdomen. It is no medical device: do not use it for patients."
_LIMITS = (
    "Scans that differ from the data it was trained on, in scanner, protocol, contrast, age or"
    " disease, may be segmented wrongly without a sign of it.",
    "Validation Dice chose the network, so it is too high for new patients.",
    "Every voxel is given to one of the classes; findings beyond them are not reported.",
)
_UNKNOWN = "not recorded"


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """One of the networks whose probabilities are averaged.

    Attributes:
        network_sha256: Digest of its file.
        parameters: Trainable parameters.
        data_sha256: Digest of the manifest of the records that it was trained on.
        validation_cases: Number of cases that it was chosen by.
        validation_dice: Its mean Dice over organs on these.
        organ_dice: The same of each organ.
        lost_organs: Organs whose Dice was about 0 on these.
        trained_with: Versions of the packages.
    """

    network_sha256: str
    parameters: int
    data_sha256: str
    validation_cases: int
    validation_dice: float
    organ_dice: dict[str, float]
    lost_organs: tuple[str, ...]
    trained_with: dict[str, str]

    @classmethod
    def of(cls, run: Run) -> TrainedNetwork:
        """Takes the facts from a run."""
        manifest = run.manifest
        return cls(
            network_sha256=run.network_digest(),
            parameters=manifest.parameters,
            data_sha256=manifest.data_digest,
            validation_cases=len(manifest.validation_cases),
            validation_dice=manifest.best_dice,
            organ_dice=run.organ_dice(),
            lost_organs=manifest.lost_organs,
            trained_with=manifest.versions,
        )


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """The facts of an exported model, for whoever uses it.

    Attributes:
        info: Facts that prediction needs.
        networks: The networks; empty if the model was made without runs.
        settings: Settings of the export by name.
        intended_use: Purpose, in words.
        limits: Known limits, in words.
        int8_dice: Validation Dice of each organ, and their mean, in float32 and int8; empty for
            another precision.
    """

    info: ModelInfo
    networks: tuple[TrainedNetwork, ...] = ()
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    intended_use: str = INTENDED_USE
    limits: tuple[str, ...] = _LIMITS
    int8_dice: tuple[Int8Dice, ...] = ()

    @classmethod
    def of(
        cls, runs: Sequence[Run], info: ModelInfo, *, settings: dict[str, Any], intended_use: str
    ) -> ModelCard:
        """Takes the facts from runs."""
        networks = tuple(map(TrainedNetwork.of, runs))
        return cls(info, networks, settings, intended_use)

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps({**dataclasses.asdict(self), "exported_with": __version__}, indent=2)

    def to_markdown(self) -> str:
        """The card as a page."""
        info = self.info
        spacing, window = (" x ".join(map(str, each)) for each in (info.spacing_mm, info.window))
        lines = [
            "# Model card",
            "",
            "## Intended use",
            "",
            self.intended_use,
            "",
            "## Limits",
            "",
            *(f"* {limit}" for limit in self.limits),
            "",
            "## Input and output",
            "",
            f"* CT in HU, of any orientation; the network works at {spacing} mm (z, y, x)",
            f"* windows of {window} voxels; HU of {info.hu_window[0]:g} to {info.hu_window[1]:g}",
            f"* at most {info.max_voxels:,} voxels, as sent and at that spacing",
            *(f"* {name}: {value}" for name, value in self.settings.items()),
            "",
            "| index | class |",
            "|---|---|",
            *(f"| {index} | {name} |" for index, name in enumerate(info.class_names)),
            "",
            "## Data and results",
            "",
            *self._table(),
            *self._organ_table(),
            *self._int8_table(),
        ]
        return "\n".join([*lines, "", f"Exported with fcnseg {__version__}.", ""])

    def _table(self) -> list[str]:
        """The networks as a table."""
        if not self.networks:
            return [f"Training: {_UNKNOWN}."]
        return [
            "| network | parameters | records | validation cases | validation Dice | lost organs |",
            "|---|---|---|---|---|---|",
            *(
                f"| {each.network_sha256[:12]} | {each.parameters:,} | {each.data_sha256[:12]} |"
                f" {each.validation_cases or _UNKNOWN} | {each.validation_dice:.3f} |"
                f" {', '.join(each.lost_organs) or 'none'} |"
                for each in self.networks
            ),
        ]

    def _organ_table(self) -> list[str]:
        """The validation Dice of each organ as a table, with a column for each network."""
        scores = [each.organ_dice for each in self.networks]
        if not any(scores):
            return []
        digests = " | ".join(each.network_sha256[:12] for each in self.networks)
        return [
            "",
            f"| validation Dice | {digests} |",
            "|---" * (1 + len(scores)) + "|",
            *(
                f"| {name} | {' | '.join(_dice(each.get(name)) for each in scores)} |"
                for name in self.info.class_names[1:]
            ),
        ]

    def _int8_table(self) -> list[str]:
        """The validation Dice of both precisions as a table, if there are two."""
        if not self.int8_dice:
            return []
        return [
            "",
            "| organ | validation Dice in float32 | in int8 |",
            "|---|---|---|",
            *(
                f"| {each.organ} | {_dice(each.float32)} | {_dice(each.int8)} |"
                for each in self.int8_dice
            ),
        ]


def _dice(dice: float | None) -> str:
    return "none" if dice is None else f"{dice:.4f}"
