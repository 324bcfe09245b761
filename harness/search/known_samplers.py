"""The samplers of a search by name, apart from what builds them, which takes seconds to import."""

from __future__ import annotations

SAMPLERS = {
    "gp_screened": "Expected hypervolume improvement, chosen among variations of the front; the default.",
    "gp": "Gaussian-process optimisation by expected hypervolume improvement.",
    "botorch": "qNEHVI; needs pip install 'leakgauge[botorch]'.",
    "nsga2": "NSGA-II, an evolutionary search; for many trials.",
    "tpe": "Tree-structured Parzen estimator; for many trials.",
    "random": "Random shares.",
    "sweep": "The same share in every block, ever more finely; a rival that a search has to beat.",
    "line": "Random ends of a straight line over the blocks; the other rival.",
}
"""What `list samplers` prints; a test holds the names to those of ``SamplerName``."""
