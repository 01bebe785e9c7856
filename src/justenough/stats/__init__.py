"""Effect sizes, bootstrap intervals and paired tests; what cannot be estimated is `None`, never 0 or NaN."""

from justenough.stats.estimates import RESAMPLES, Estimate
from justenough.stats.paired import (
    McNemar,
    NonInferiority,
    mcnemar,
    mean_estimate,
    non_inferiority,
    paired_bootstrap,
    resampled_sums,
    saving_bootstrap,
    saving_estimate,
    tango_score,
    wilson,
)
from justenough.stats.separation import (
    MINIMUM_OF_EACH,
    Separation,
    Verdict,
    auroc,
    cohens_d,
    least_variance,
    separation,
    within_groups,
)

__all__ = [
    "MINIMUM_OF_EACH",
    "RESAMPLES",
    "Estimate",
    "McNemar",
    "NonInferiority",
    "Separation",
    "Verdict",
    "auroc",
    "cohens_d",
    "least_variance",
    "mcnemar",
    "mean_estimate",
    "non_inferiority",
    "paired_bootstrap",
    "resampled_sums",
    "saving_bootstrap",
    "saving_estimate",
    "separation",
    "tango_score",
    "wilson",
    "within_groups",
]
