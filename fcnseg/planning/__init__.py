"""Planning of a configuration for a dataset and a memory budget, with reasons; no TensorFlow."""

from fcnseg.planning.candidates import Candidate, candidates
from fcnseg.planning.commented_yaml import commented_yaml
from fcnseg.planning.proposal import Proposal, propose
from fcnseg.planning.spacing import target_spacing

__all__ = [
    "Candidate",
    "Proposal",
    "candidates",
    "commented_yaml",
    "propose",
    "target_spacing",
]
