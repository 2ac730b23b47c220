"""What a check of the audit says, and how two numbers are held against each other."""

from dataclasses import dataclass, field

import numpy as np

SIGMAS = 6.0  # how many standard errors apart two estimates of one number may be


@dataclass(frozen=True)
class Finding:
    """One check of the audit: its name, its status, what was measured, and what to do.

    The status is "error" for a number that is not what its name says, "warning" for what a reader of the numbers has to
    know and for what could not be checked, and else "ok".
    """

    name: str
    status: str
    numbers: dict = field(default_factory=dict)
    advice: str = ""


def same(value, expected, noise=0.0):
    """Whether a value is the expected one: to a thousandth, and to SIGMAS times its standard error `noise`."""
    return abs(value - expected) <= 1e-3 * max(abs(expected), 1e-3) + SIGMAS * noise


def diagnosis(term, reported, expected, wrong, noise=0.0):
    """One sentence on what is wrong with a number, from a dict: reason -> what it would be then."""
    reasons = [reason for reason, value in wrong.items() if same(reported, value, noise)]
    return f"{term} is {reported:.4g} and must be {expected:.4g}: {reasons[0] if reasons else 'check its formula'}."


def standard_error(values, *counts):
    """Standard error of the mean over images of an average over some draws of each.

    Args:
        values: Float [s, n], s draws for each of n images.
        *counts: Ints, how many draws were averaged; several for the difference of as many such averages.
    """
    variance = np.var(values, axis=0, ddof=1).mean()
    return float(np.sqrt(variance * sum(1 / count for count in counts) / values.shape[1]))
