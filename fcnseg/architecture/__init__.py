"""A network as its configuration describes it: levels, sizes, plan and cost, without TensorFlow."""

from fcnseg.architecture.geometry import output_shape, supervision_strides
from fcnseg.architecture.planning import Plan, plan_model, plan_strides
from fcnseg.architecture.summary import LayerCost, ModelSummary, model_summary

__all__ = [
    "LayerCost",
    "ModelSummary",
    "Plan",
    "model_summary",
    "output_shape",
    "plan_model",
    "plan_strides",
    "supervision_strides",
]
