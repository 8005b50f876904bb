"""On the old line: optimizers and layers of tensorflow-addons work with ours."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from fcnseg.config import LossConfig, ModelConfig
from fcnseg.losses import OrganDice, build_loss
from fcnseg.networks.build import build_fcn

tfa = pytest.importorskip(
    "tensorflow_addons", reason="tensorflow-addons is not installed: see make test-addons"
)


@pytest.mark.parametrize(
    "optimizer",
    [
        tfa.optimizers.RectifiedAdam(1e-1),
        tfa.optimizers.NovoGrad(1e-2),
        tfa.optimizers.LAMB(3e-2),
        tfa.optimizers.AdamW(weight_decay=1e-4, learning_rate=1e-2),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_network_learns_by_an_optimizer_of_addons(optimizer):
    """What is above 50 HU is the organ: its Dice rises from what chance gives."""
    keras.utils.set_random_seed(0)
    model = build_fcn(ModelConfig(filters=(4, 8)), num_classes=2)
    model.compile(
        optimizer=optimizer,
        loss=build_loss(LossConfig(name="dice_cross_entropy")),
        metrics=[OrganDice(("background", "liver"))],
    )
    hu = np.random.default_rng(0).uniform(-200, 300, (4, 8, 8, 8, 1)).astype(np.float32)
    label = (hu[..., 0] > 50).astype(np.uint8)
    history = model.fit(hu, label, batch_size=2, epochs=15, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert history["dice_liver"][-1] > history["dice_liver"][0]
