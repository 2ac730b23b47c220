"""What the latents of many images say: arrays in, numbers out."""

from typing import Any

import numpy as np

from keras_vae import installed

Array = np.ndarray[Any, Any]
ACTIVE_UNIT_VARIANCE = 0.01  # Burda et al., Importance Weighted Autoencoders, 2016, section 5.2


def active_units(z_mean: Any) -> Array:
    """Which latent dimensions depend on the image: Var_x(E[z|x]) > 0.01.

    Args:
        z_mean: Float [n, d], one row for each image.

    Returns:
        Bool [d].

    Example:

    >>> import numpy as np
    >>> from keras_vae import evaluation
    >>> evaluation.active_units(np.array([[0.0, 1.0], [1.0, 1.0]])).tolist()
    [True, False]

    Reference:
        Burda et al., Importance Weighted Autoencoders, 2016, section 5.2.
    """
    return np.asarray(np.var(z_mean, axis=0) > ACTIVE_UNIT_VARIANCE)


def aggregate_posterior(z_mean: Any, z_log_var: Any, prior_samples: Any) -> dict[str, float]:
    """Compares the moments of the aggregate posterior q(z) = 1/n sum_i q(z|x_i) with those of the prior.

    Where they are far apart, decoded draws from the prior are not what the decoder was trained on.

    Args:
        z_mean, z_log_var: Float [n, d], one row for each image.
        prior_samples: Float [m, d], draws from p(z); many, as their noise is in the result.

    Returns:
        Dict of floats: `aggregate_mean_offset`, the largest distance of a dimension's mean from the prior's, in
        standard deviations of the prior; `aggregate_variance_min` and `aggregate_variance_max`, of the variances of the
        dimensions as shares of the prior's; `aggregate_correlation`, the largest difference of the correlation of two
        dimensions from the prior's.

    Example:

    >>> import numpy as np
    >>> from keras_vae import evaluation
    >>> z_mean, prior = np.array([[1.0], [3.0]]), np.array([[-1.0], [1.0]])
    >>> checks = evaluation.aggregate_posterior(z_mean, np.zeros((2, 1)), prior)
    >>> checks["aggregate_mean_offset"], checks["aggregate_variance_max"]
    (2.0, 2.0)

    Reference:
        Hoffman and Johnson, ELBO Surgery, 2016; Rosca et al., Distribution Matching in Variational Inference, 2018.
    """
    z_mean, prior_samples = np.asarray(z_mean, "float64"), np.asarray(prior_samples, "float64")
    covariance = _covariance(z_mean) + np.diag(np.exp(z_log_var, dtype="float64").mean(axis=0))
    prior_covariance = _covariance(prior_samples)
    prior_variance = np.diag(prior_covariance)
    offset = np.abs(z_mean.mean(axis=0) - prior_samples.mean(axis=0)) / np.sqrt(prior_variance)
    ratio = np.diag(covariance) / prior_variance
    difference = np.abs(_correlation(covariance) - _correlation(prior_covariance))
    return {
        "aggregate_mean_offset": float(offset.max()),
        "aggregate_variance_min": float(ratio.min()),
        "aggregate_variance_max": float(ratio.max()),
        "aggregate_correlation": float(difference.max()),
    }


def _covariance(values: Any) -> Array:
    return np.atleast_2d(np.cov(values, rowvar=False, bias=True))


def _correlation(covariance: Any) -> Array:
    std = np.sqrt(np.diag(covariance))
    return np.asarray(covariance / np.maximum(np.outer(std, std), 1e-12))


def probe_accuracies(train_codes: Any, train_labels: Any, test_codes: Any, test_labels: Any) -> dict[str, float]:
    """How much of the classes is in the codes: a linear classifier and the nearest neighbour.

    Args:
        train_codes: Float [n, d], z_mean of training images.
        train_labels: Int [n].
        test_codes: Float [m, d], z_mean of test images.
        test_labels: Int [m].

    Returns:
        Dict of floats, shares of the test images: `linear_probe_accuracy`, by logistic regression on standardised
        codes, and `nearest_neighbour_accuracy`, by the class of the nearest training code.

    Example:

    >>> import numpy as np
    >>> from keras_vae import evaluation
    >>> codes, labels = np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0, 0, 1, 1])
    >>> evaluation.probe_accuracies(codes, labels, codes + 0.01, labels)
    {'linear_probe_accuracy': 1.0, 'nearest_neighbour_accuracy': 1.0}
    """
    installed.need("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probes = {
        "linear_probe_accuracy": make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)),
        "nearest_neighbour_accuracy": KNeighborsClassifier(1),
    }
    return {
        name: float(probe.fit(train_codes, train_labels).score(test_codes, test_labels))
        for name, probe in probes.items()
    }
