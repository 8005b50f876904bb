"""The jobs of the folders `pipelines`, `tuning` and `serving`, as the command `fcnseg` runs them.

In the wheel they are packages of this one. In a checkout they are folders at the top level, where
`python -m pipelines.convert_ct` and the like run them too.
"""

from pathlib import Path

_CHECKOUT = Path(__file__).parents[2]
if (_CHECKOUT / "pipelines" / "convert_ct.py").exists():
    __path__.append(str(_CHECKOUT))
