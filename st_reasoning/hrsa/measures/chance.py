"""What each measure says of two representations that have nothing to do with each other, in closed form."""

from __future__ import annotations

import math

from scipy.special import digamma
from scipy.stats import hypergeom

from st_reasoning.errors import InputError


def linear_cka_chance(n: int, d_x: int, d_y: int) -> float:
    """Return biased linear CKA of independent standard Gaussians [n, d_x] and [n, d_y].

    With m = n - 1 degrees of freedom after centring, E|X'Y|_F^2 = m d_x d_y and, X'X being Wishart,
    E|X'X|_F^2 = m d_x (m + d_x + 1); the ratio of expectations is sqrt(d_x d_y / ((n + d_x) (n + d_y))),
    which is d / (n + d) at equal widths. Real activations are not isotropic: see
    :func:`linear_cka_permutation_chance`.
    """
    _positive(n=n, d_x=d_x, d_y=d_y)
    return math.sqrt(d_x * d_y / ((n + d_x) * (n + d_y)))


def linear_cka_permutation_chance(n: int, effective_rank_x: float, effective_rank_y: float) -> float:
    """Return the exact mean of biased linear CKA over all n! pairings of the rows of X with the rows of Y.

    Rows and columns of a centred Gram matrix sum to zero, so its permuted product with another one has the
    mean tr K tr L / (n - 1). Divided by |K|_F |L|_F that is sqrt(r_x r_y) / (n - 1), r being the
    participation ratio (:func:`~st_reasoning.hrsa.measures.effective_rank`). It takes rows as exchangeable;
    tokens of one sentence are not, so for tokens it is a lower limit.
    """
    _positive(n=n - 1, effective_rank_x=effective_rank_x, effective_rank_y=effective_rank_y)
    return math.sqrt(effective_rank_x * effective_rank_y) / (n - 1)


def knn_overlap_chance(n: int, k: int) -> float:
    """Return the mean Jaccard index of two independent random k-subsets of the n - 1 other rows.

    Their intersection I is hypergeometric; this is E[I / (2k - I)], close to k / (2 (n - 1) - k).
    """
    if not 1 <= k < n:
        raise InputError(f"k: expected a number from 1 to {n - 1} for {n} rows, got {k}")
    return float(hypergeom(n - 1, k, k).expect(lambda shared: shared / (2 * k - shared)))


def inverse_row_entropy_chance(d: int) -> float:
    """Return the mean inverse row entropy of a uniformly random orthogonal matrix [d, d].

    Its squared entries are Beta(1/2, (d - 1)/2), for which d E[-p ln p] = digamma(d/2 + 1) - digamma(3/2).
    For large d the result is (ln 2 + digamma(3/2)) / ln d = 0.730 / ln d.
    """
    if d < 2:
        raise InputError(f"d: expected a width of at least 2, got {d}")
    return 1 - float(digamma(d / 2 + 1) - digamma(1.5)) / math.log(d)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise InputError(f"{name}: expected a positive number, got {value}")
