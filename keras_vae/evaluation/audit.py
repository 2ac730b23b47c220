"""The audit of a model: are its numbers what their names say, and is it in good health?

Every number of the model is computed a second time, from the formula and in float64, without the code that the model
computes it with.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from keras_vae import gaussian, likelihoods, objectives, posteriors, priors
from keras_vae import noise as noises
from keras_vae.config import InputError
from keras_vae.evaluation import latents, marginal
from keras_vae.evaluation.scores import as_one, fixed_noise, has_likelihood, inputs_of, marginal_likelihood

MAX_IMAGES = 200
REPEATS = 10  # of the model's own losses
DRAWS = 100  # of z in ours
BOUND_SAMPLES = 1000
COLLAPSED = 0.1  # nats of KL for an image: less than that tells the decoder nothing


@dataclass(frozen=True)
class Finding:
    """One check of the audit: its name, its status, what was measured, and what to do.

    The status is "error" for a number that is not what its name says, "warning" for what a reader of the numbers has to
    know, and else "ok".
    """

    name: str
    status: str
    numbers: dict = field(default_factory=dict)
    advice: str = ""


def audit(model, images, *, labels=None, results=None, seed=0):
    """Checks a VAE against the formulas, and looks for what commonly goes wrong in training one.

    Args:
        model: A VAE of this package, or a model with the same methods.
        images: Float32 [n, ...], pixels in [0, 1], as the model was trained; the first 200 are used.
        labels: Int [n], classes of the images, for a model that takes them.
        results: Results of `evaluate` that were written down, to be checked as well, or None.
        seed: Int seed of the noise.

    Returns:
        List of `Finding`.

    Raises:
        InputError: for a model without q(z|x).

    Example:

    >>> import keras_vae, numpy as np
    >>> vae = keras_vae.VAE.from_preset("mlp", seed=0)
    >>> images = np.random.default_rng(0).integers(0, 2, (20, 28, 28, 1)).astype("float32")
    >>> {finding.name for finding in vae.audit(images) if finding.status == "error"}
    set()
    """
    if not hasattr(model, "prior"):
        raise InputError(f"An audit is about q(z|x) and p(z), and {type(model).__name__} has none. Use a VAE.")
    images = np.asarray(images[:MAX_IMAGES], "float32")
    x = as_one(inputs_of(model, images, None if labels is None else labels[:MAX_IMAGES]))
    with fixed_noise(model, seed):
        rng = np.random.default_rng(seed)
        terms = _terms(model, x)
        heads = [np.asarray(value) for value in model.encode(x)]
        diagonal = isinstance(model.posterior, posteriors.DiagonalGaussian)
        findings = [
            _loss(model, terms),
            *([_sampling(model, rng)] if diagonal else []),
            _kl(model, heads, terms, rng),
            _likelihood(model, images, rng),
            _reconstruction(model, x, math.prod(images.shape[1:]), heads, terms, rng),
            _bounds(model, x, terms, seed),
            _pixels(model, images),
            *_health(np.asarray(model.posterior.mean(heads)), terms),
        ]
    return findings if results is None else [*findings, _written(model, images, results)]


def _terms(model, x):
    """Terms of the loss of each image: name -> float64 [r, n], from r draws of noise."""
    runs = [model.loss_terms(x, training=False) for _ in range(REPEATS)]
    return {name: np.stack([run[name] for run in runs]).astype("float64") for name in runs[0]}


def _loss(model, terms):
    """Is the loss the sum of its terms? Only for the ELBO it has to be."""
    name = "loss = reconstruction_loss + kl_loss"
    means = {term: float(values.mean()) for term, values in terms.items()}
    total = means["reconstruction_loss"] + means["kl_loss"]
    numbers = {**means, "sum": total}
    objective = model.objective
    if not isinstance(objective, objectives.ELBO):
        advice = f"The objective is {type(objective).__name__}: quote elbo and nll of `evaluate`, never the loss."
        return Finding(name, "warning", numbers, advice)
    if objective.beta != 1 or objective.free_bits:
        advice = (
            f"The loss has beta {objective.beta:g} and {objective.free_bits:g} free bits: do not call it an ELBO, and "
            "quote elbo and nll of `evaluate`."
        )
        return Finding(name, "warning", numbers, advice)
    if _same(means["loss"], total):
        return Finding(name, "ok", numbers)
    beta = (means["loss"] - means["reconstruction_loss"]) / means["kl_loss"] if means["kl_loss"] else math.nan
    advice = (
        f"The loss claims to be the negative ELBO, and the KL has the weight {beta:.3g} in it: a beta-weighted loss is "
        "no ELBO. Give the objective that beta, or take the weight out."
    )
    return Finding(name, "error", numbers, advice)


def _sampling(model, rng):
    """Is z = z_mean + exp(0.5 * z_log_var) * eps?"""
    name = "z = z_mean + exp(0.5 * z_log_var) * eps"
    log_vars = np.repeat(np.linspace(-6.0, 2.0, 9), 2000)
    shape = (len(log_vars), model.latent_dim)
    z_mean = np.full(shape, 3.0, "float32")
    z, _ = model.sampling((z_mean, np.broadcast_to(log_vars[:, None], shape).astype("float32")))
    z = np.asarray(z, "float64").reshape(9, -1)
    slope, offset = np.polyfit(log_vars[::2000], np.log(z.var(axis=1)), 1)
    numbers = {"mean for z_mean 3": float(z[0].mean()), "slope of log Var z": float(slope), "offset": float(offset)}
    if abs(z[0].mean() - 3) < 0.05 and abs(slope - 1) < 0.1 and abs(offset) < 0.2:
        return Finding(name, "ok", numbers)
    if abs(slope - 2) < 0.1:
        advice = "The noise is scaled by exp(z_log_var): the standard deviation is exp(0.5 * z_log_var)."
    else:
        advice = "The draws of the Sampling layer have another mean or variance than q(z|x): check its formula."
    return Finding(name, "error", numbers, advice)


def _draws(model, heads, count, rng, wrong_scale=False):
    """z [s, n, d] from q(z|x) and log q(z|x) [s, n], float64: by the formula for a diagonal Gaussian q(z|x)."""
    if not isinstance(model.posterior, posteriors.DiagonalGaussian):
        z, log_posterior = model.posterior.sample(heads, count, noises.get(int(rng.integers(2**31))))
        return np.asarray(z, "float64"), np.asarray(log_posterior, "float64")
    z_mean, z_log_var = heads[0].astype("float64"), np.minimum(heads[1].astype("float64"), gaussian.MAX_LOG_VAR)
    eps = rng.normal(size=(count, *z_mean.shape))
    z = z_mean + np.exp((1.0 if wrong_scale else 0.5) * z_log_var) * eps
    return z, -0.5 * (math.log(2 * math.pi) + z_log_var + eps**2).sum(axis=-1)


def _kl(model, heads, terms, rng):
    """Is kl_loss KL(q(z|x) || p(z)), summed over the latent dimensions?"""
    name = "kl_loss = KL(q(z|x) || p(z)), analytic and by Monte Carlo"
    z, log_posterior = _draws(model, heads, DRAWS, rng)
    standard = isinstance(model.prior, priors.StandardNormal)
    closed = standard and isinstance(model.posterior, posteriors.DiagonalGaussian)
    if standard:
        log_prior = -0.5 * (math.log(2 * math.pi) + z**2).sum(axis=-1)
    else:
        log_prior = np.stack([model.prior.log_prob(tf.constant(z[i], tf.float32)) for i in range(DRAWS)])
    monte_carlo = log_posterior - log_prior  # (s, n)
    reported = terms["kl_loss"]
    numbers = {"kl_loss": float(reported.mean()), "monte_carlo": float(monte_carlo.mean())}
    noise = math.hypot(_error_of_mean(monte_carlo), _error_of_mean(reported))
    expected = monte_carlo.mean()
    if closed:
        z_mean, z_log_var = heads[0].astype("float64"), np.minimum(heads[1].astype("float64"), gaussian.MAX_LOG_VAR)
        analytic = 0.5 * (np.exp(z_log_var) + z_mean**2 - 1 - z_log_var).sum(axis=-1)
        numbers["analytic"] = float(analytic.mean())
        if not _same(analytic.mean(), expected, 5 * noise):
            return Finding(name, "error", numbers, "The two disagree: the log-variances are too large for the draws.")
        expected, noise = analytic.mean(), 0.0
    if _same(reported.mean(), expected, 5 * noise):
        return Finding(name, "ok", numbers)
    dims = model.latent_dim
    wrong = {
        "its sign is turned": -expected,
        f"it is the mean over the {dims} latent dimensions, not the sum": expected / dims,
        "it is multiplied by beta: a weighted KL makes the sum no ELBO": expected * getattr(model.objective, "beta", 1),
        "the factor 0.5 is missing": 2 * expected,
    }
    return Finding(name, "error", numbers, _diagnosis("kl_loss", reported.mean(), expected, wrong, 5 * noise))


def _likelihood(model, images, rng):
    """Is log p(x|z) a log-probability, summed over pixels, at extreme parameters too?"""
    name = "log p(x|z) is a log-probability, summed over pixels"
    bernoulli = isinstance(model.likelihood, likelihoods.Bernoulli)
    if not bernoulli and not isinstance(model.likelihood, likelihoods.Gaussian):
        return _total_probability(name, model.likelihood, rng)
    shape = (64, *images.shape[1:])
    pixels = math.prod(shape[1:])
    extreme = np.arange(64) >= 32
    if bernoulli:
        x = rng.integers(0, 2, shape).astype("float64")
        params = np.concatenate([rng.normal(size=(32, *shape[1:])), 60 * rng.choice([-1, 1], (32, *shape[1:]))])
        exact = -np.logaddexp(0, np.where(x == 1, -params, params))
        wrong = {}
    else:
        x, params = rng.uniform(size=shape), rng.uniform(size=shape)
        scale = model.likelihood.statistics()["scale"]
        exact = -0.5 * ((x - params) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)
        wrong = {
            "log(2 pi) is dropped": exact + 0.5 * math.log(2 * math.pi),
            "log(scale) is dropped": exact + math.log(scale),
            "it is minus the squared error": -((x - params) ** 2),
        }
    wrong["it is the mean over pixels, not the sum"] = exact / pixels
    exact = exact.reshape(len(x), -1).sum(axis=-1)
    wrong = {reason: values.reshape(len(x), -1).sum(axis=-1).mean() for reason, values in wrong.items()}
    reported = np.asarray(model.likelihood.log_prob(x.astype("float32"), params.astype("float32")), "float64")
    numbers = {"log_prob": float(reported.mean()), "exact": float(exact.mean())}
    if _same(reported.mean(), exact.mean()):
        return Finding(name, "ok", numbers)
    if bernoulli and _same(reported[~extreme].mean(), exact[~extreme].mean()):
        advice = (
            "It is wrong at extreme logits alone: it takes the log of clipped probabilities. Compute it from logits."
        )
        return Finding(name, "error", numbers, advice)
    return Finding(name, "error", numbers, _diagnosis("log_prob", reported.mean(), exact.mean(), wrong))


def _total_probability(name, likelihood, rng):
    """Does p(x|z) of one pixel sum to 1 over all its values in [0, 1], and log p(x|z) of two pixels to twice that?"""
    if not isinstance(likelihood, (likelihoods.ContinuousBernoulli, likelihoods.DiscretizedLogistic)):
        return Finding(name, "warning", {}, f"Not checked: {type(likelihood).__name__} is not one of this package's.")
    discrete = likelihood.support == "8-bit"
    x = np.linspace(0.0, 1.0, 256 if discrete else 4001, dtype="float32").reshape(-1, 1, 1, 1)
    params = rng.uniform(size=(5, 1, 1, 1, 1)).astype("float32") * np.ones_like(x)
    log_prob = np.asarray(likelihood.log_prob(x, params), "float64")  # (5, values)
    two = np.asarray(likelihood.log_prob(np.repeat(x, 2, axis=1), np.repeat(params, 2, axis=2)), "float64")
    total = np.exp(log_prob).sum(axis=1) if discrete else _integral(np.exp(log_prob), x.ravel())
    numbers = {"total probability": float(total.mean()), "log p of two pixels / of one": float((two / log_prob).mean())}
    if np.allclose(total, 1, atol=1e-3) and np.allclose(two, 2 * log_prob, rtol=1e-3, atol=1e-3):
        return Finding(name, "ok", numbers)
    return Finding(name, "error", numbers, "A constant is missing, or it is the mean over pixels and not the sum.")


def _reconstruction(model, x, pixels, heads, terms, rng):
    """Is reconstruction_loss -log p(x|z) under draws from q(z|x)?"""
    name = "reconstruction_loss = -E log p(x|z), summed over pixels"

    def expected(wrong_scale=False):
        z, _ = _draws(model, heads, REPEATS, np.random.default_rng(seed), wrong_scale)
        return np.stack([-model.log_likelihood(x, one[None].astype("float32"))[0] for one in z]).astype("float64")

    seed = rng.integers(2**31)
    ours = expected()
    reported = terms["reconstruction_loss"]
    numbers = {"reconstruction_loss": float(reported.mean()), "again": float(ours.mean())}
    noise = 5 * math.hypot(_error_of_mean(ours), _error_of_mean(reported))
    if _same(reported.mean(), ours.mean(), noise):
        return Finding(name, "ok", numbers)
    constant = 0.5 * math.log(2 * math.pi) * pixels
    wrong = {
        "it is the mean over pixels, not the sum": ours.mean() / pixels,
        "log(2 pi) is dropped": ours.mean() - constant,
        "its sign is turned": -ours.mean(),
    }
    if isinstance(model.posterior, posteriors.DiagonalGaussian):
        reason = "z is drawn with the standard deviation exp(z_log_var), not exp(0.5 * z_log_var)"
        wrong[reason] = expected(wrong_scale=True).mean()
    advice = _diagnosis("reconstruction_loss", reported.mean(), ours.mean(), wrong, noise)
    return Finding(name, "error", numbers, advice)


def _bounds(model, x, terms, seed):
    """Is the ELBO the importance-weighted bound of one sample, and below that of more?"""
    name = "ELBO = importance-weighted bound of 1 sample, below that of more"
    bounds = marginal_likelihood(model, x, BOUND_SAMPLES, seed=seed)["bound"].mean(axis=0)
    elbo = -(terms["reconstruction_loss"] + terms["kl_loss"])
    names = [f"{size} samples" for size in marginal.bound_sizes(BOUND_SAMPLES)]
    numbers = {"ELBO": float(elbo.mean()), **dict(zip(names, bounds.tolist(), strict=True))}
    rises = np.all(np.diff(bounds) >= 0)
    if rises and _same(elbo.mean(), bounds[0], 7 * _error_of_mean(elbo)):
        return Finding(name, "ok", numbers)
    advice = (
        "No choice of weights brings this about: one of reconstruction_loss, kl_loss and the log_prob of the prior is "
        "not what its name says."
    )
    return Finding(name, "error", numbers, advice)


def _pixels(model, images):
    """Have these pixels a likelihood?"""
    name = "the pixels have a likelihood under p(x|z)"
    grey = float(np.mean((images != 0) & (images != 1)))
    numbers = {"share of grey pixels": grey}
    if has_likelihood(model, images):
        return Finding(name, "ok", numbers)
    advice = (
        "A Bernoulli likelihood has none for grey pixels: the loss is a cross-entropy and no bound on log p(x). "
        "Binarise the images (--binarization), or use continuous_bernoulli or gaussian."
    )
    return Finding(name, "warning", numbers, advice)


def _health(z_mean, terms):
    """Do the latents carry anything?"""
    active = latents.active_units(z_mean)
    kl = float(terms["kl_loss"].mean())
    numbers = {"active_units": int(active.sum()), "latent_dim": len(active), "kl_loss": kl}
    dead = [int(index) for index in np.flatnonzero(~active)]
    if len(dead) == len(active) or abs(kl) < COLLAPSED:
        advice = (
            "Posterior collapse: the decoder ignores z. Try a warm-up of the KL (--warmup-steps), free bits "
            "(--free-bits), a beta below 1, a weaker decoder, or a lower learning rate."
        )
        yield Finding("no posterior collapse", "warning", numbers, advice)
    else:
        yield Finding("no posterior collapse", "ok", numbers)
    if dead:
        advice = (
            "They cost nothing and carry nothing: a smaller latent_dim does as well; a warm-up of the KL or "
            "--objective iwae keeps more of them alive."
        )
        yield Finding("no dead latent dimensions", "warning", {"dead": dead}, advice)
    else:
        yield Finding("no dead latent dimensions", "ok", numbers)


def _written(model, images, results):
    """Are the results that were written down called what they are?"""
    name = "the written elbo and nll are called what they are"
    numbers = {key: results[key] for key in ("elbo", "loss", "reconstruction_loss", "kl_loss", "nll") if key in results}
    if not has_likelihood(model, images) and {"elbo", "nll"} & set(results):
        return Finding(name, "error", numbers, "These pixels have no likelihood, so they have neither elbo nor nll.")
    if "elbo" in results and not _same(-results["elbo"], results["reconstruction_loss"] + results["kl_loss"]):
        advice = "elbo is not -(reconstruction_loss + kl_loss): a weighted loss is called an ELBO. Evaluate again."
        return Finding(name, "error", numbers, advice)
    return Finding(name, "ok", numbers)


def _integral(values, x):
    """Trapezoidal rule along the last axis."""
    return (0.5 * (values[..., 1:] + values[..., :-1]) * np.diff(x)).sum(axis=-1)


def _diagnosis(term, reported, expected, wrong, noise=0.0):
    """One sentence on what is wrong with a number, from a dict: reason -> what it would be then."""
    reasons = [reason for reason, value in wrong.items() if _same(reported, value, noise)]
    return f"{term} is {reported:.4g} and must be {expected:.4g}: {reasons[0] if reasons else 'check its formula'}."


def _same(value, expected, noise=0.0):
    return abs(value - expected) <= 1e-3 * max(abs(expected), 1e-3) + noise


def _error_of_mean(values):
    """Standard error of the mean of [s, n] values, which comes of the draws s alone."""
    return float(np.std(values.mean(axis=1), ddof=1) / math.sqrt(len(values)))
