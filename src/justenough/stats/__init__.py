"""Effect sizes, intervals and paired tests; what cannot be estimated is `None`, never 0 or NaN."""

from justenough.stats.effects import auroc, cohens_d, least_variance, within_groups
from justenough.stats.estimates import RESAMPLES, Estimate
from justenough.stats.intervals import auroc_interval, effect_interval
from justenough.stats.paired import (
    McNemar,
    mcnemar,
    mean_estimate,
    paired_bootstrap,
    resampled_sums,
    saving_bootstrap,
    saving_estimate,
    wilson,
)
from justenough.stats.separation import MINIMUM_OF_EACH, Separation, Verdict, separation
from justenough.stats.tango import (
    NonInferiority,
    change_interval,
    discordant,
    non_inferiority,
    problems_needed,
    tango_score,
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
    "auroc_interval",
    "change_interval",
    "cohens_d",
    "discordant",
    "effect_interval",
    "least_variance",
    "mcnemar",
    "mean_estimate",
    "non_inferiority",
    "paired_bootstrap",
    "problems_needed",
    "resampled_sums",
    "saving_bootstrap",
    "saving_estimate",
    "separation",
    "tango_score",
    "wilson",
    "within_groups",
]
