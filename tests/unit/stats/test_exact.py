import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from justenough.errors import InputError
from justenough.stats.exact import most_harms, most_net_harms, passes_net
from justenough.stats.tango import tango_score


def chance(most: NDArray[np.int64], n: int, harm: float, rescue: float) -> float:
    """Of passing, summed over all counts."""
    rescues = np.arange(n + 1)
    below = binom.cdf(np.minimum(most, n - rescues), n - rescues, min(1.0, harm / (1 - rescue)))
    return float((binom.pmf(rescues, n, rescue) * below).sum())


@pytest.mark.parametrize(("n", "limit", "error"), [(1, 0.5, 0.6), (30, 0.1, 0.05), (300, 0.01, 0.05), (300, 0.02, 0.1)])
def test_the_test_of_harm_is_the_exact_binomial(n: int, limit: float, error: float) -> None:
    most = most_harms(n, limit=limit, error=error)
    assert most < 0 or binom.cdf(most, n, limit) <= error
    assert binom.cdf(most + 1, n, limit) > error
    assert most_harms(298, limit=0.01, error=0.05) == -1
    assert most_harms(299, limit=0.01, error=0.05) == 0


@pytest.mark.parametrize(
    ("n", "limit", "error"), [(20, 0.1, 0.1), (60, 0.05, 0.05), (120, 0.02, 0.2), (300, 0.02, 0.05)]
)
def test_no_rescue_rate_makes_the_net_test_err_more_than_it_may(n: int, limit: float, error: float) -> None:
    most = most_net_harms(n, limit=limit, error=error)
    worst = [chance(most, n, rate + limit, rate) for rate in np.linspace(0, (1 - limit) / 2, 701)]
    assert max(worst) <= error
    # Nor does a greater net change.
    assert chance(most, n, limit + 0.11, 0.1) <= max(worst)
    # And it uses most of the error, where the counts are fine enough for that.
    assert n < 100 or max(worst) > 0.9 * error


@pytest.mark.parametrize(
    ("n", "limit", "error"), [(60, 0.05, 0.05), (300, 0.01, 0.05), (300, 0.02, 0.05), (3000, 0.01, 0.05)]
)
def test_what_passes_the_test_of_harm_passes_the_net_test(n: int, limit: float, error: float) -> None:
    most, alone = most_net_harms(n, limit=limit, error=error), most_harms(n, limit=limit, error=error)
    assert most[0] == alone
    assert (np.diff(most) >= 0).all()
    # Rescue makes room for more harm.
    assert most[-1] > alone + n // 10


def test_the_order_is_tangos() -> None:
    n, limit = 200, 0.05
    most = most_net_harms(n, limit=limit, error=0.05)
    inside = [tango_score(rescues, int(most[rescues]), n, -limit) for rescues in range(5, 90)]
    outside = [tango_score(rescues, int(most[rescues]) + 1, n, -limit) for rescues in range(5, 90)]
    assert max(outside) <= min(inside)


def test_where_even_no_harm_is_too_few_labels_rescue_can_still_certify() -> None:
    # 20 labels cannot certify harm at 5 %, but many rescues certify the net change.
    most = most_net_harms(20, limit=0.05, error=0.05)
    assert most[0] == -1
    assert most[10] >= 0
    assert passes_net(np.array([0, 0]), np.array([0, 10]), 20, limit=0.05, error=0.05).tolist() == [False, True]


def test_counts_are_computed_once_and_wrong_settings_refused() -> None:
    first = most_net_harms(50, limit=0.1, error=0.1)
    assert most_net_harms(50, limit=0.1, error=0.1) is first
    assert not first.flags.writeable
    for n, limit, error in ((0, 0.1, 0.1), (10, 0.0, 0.1), (10, 0.1, 1.0)):
        with pytest.raises(InputError):
            most_net_harms(n, limit=limit, error=error)
