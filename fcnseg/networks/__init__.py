"""3D fully convolutional networks: levels, sizes, topology, cost, and their Keras models.

`fcnseg.networks.build`, `keras_builder` and `layers` need TensorFlow, and are not imported here.
"""

from fcnseg.networks.anisotropy import LevelPlan, plan_model, plan_strides
from fcnseg.networks.cost import LayerCost, ModelSummary, model_summary
from fcnseg.networks.shapes import output_shape, supervision_strides

__all__ = [
    "LayerCost",
    "LevelPlan",
    "ModelSummary",
    "model_summary",
    "output_shape",
    "plan_model",
    "plan_strides",
    "supervision_strides",
]
