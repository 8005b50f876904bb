"""Planning of a configuration for a dataset and a budget of memory or time, with reasons.

It needs no TensorFlow: what measures time is passed in.
"""

from fcnseg.planning.candidates import Candidate, candidates
from fcnseg.planning.commented_yaml import commented_yaml
from fcnseg.planning.proposal import Proposal, propose, propose_in_time
from fcnseg.planning.spacing import target_spacing
from fcnseg.planning.time_budget import CaseTime, Stopwatch

__all__ = [
    "Candidate",
    "CaseTime",
    "Proposal",
    "Stopwatch",
    "candidates",
    "commented_yaml",
    "propose",
    "propose_in_time",
    "target_spacing",
]
