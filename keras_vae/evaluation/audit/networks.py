"""Do the networks return what they are taken for, and do the latents carry anything?"""

import keras
import numpy as np

from keras_vae import likelihoods
from keras_vae.evaluation import latents
from keras_vae.evaluation.audit.finding import Finding

HEADS = "the heads of the encoder end without an activation"
DECODER = "the decoder ends without an activation"
COLLAPSE = "no posterior collapse"
DEAD = "no dead latent dimensions"
COLLAPSED = 0.1  # nats of KL for an image: less than that tells the decoder nothing
BOUNDED = ("sigmoid", "hard_sigmoid", "tanh", "hard_tanh", "softsign", "softmax")
RESHAPING = ("Reshape", "Flatten", "Permute", "Cropping2D", "ZeroPadding2D", "Dropout")


def check_heads(subject, rng):
    """Does each head go below 0, for some image, or for some input that is no image?"""
    images = subject.images[: subject.distinct]
    noise = rng.normal(size=images.shape).astype("float32")
    labels = [] if subject.labels is None else [subject.labels[: len(images)]]
    encoded = [subject.model.encode(probe, *labels) for probe in (images, 1 - images, 10 * images, -10 * images, noise)]
    numbers = {}
    for index, name in enumerate(subject.model.posterior.head_shapes((None,))):
        values = np.concatenate([np.asarray(heads[index]) for heads in encoded])
        numbers |= {f"lowest {name}": float(values.min()), f"highest {name}": float(values.max())}
        bounds = _bounds(values)
        if bounds and final_activation(subject.model.encoder, index) != "linear":
            advice = f"{name} is {bounds}, whatever the image. Let the head end in a layer without an activation."
            return Finding(HEADS, "error" if values.min() >= 0 else "warning", numbers, advice)
    return Finding(HEADS, "ok", numbers)


def check_decoder(subject, rng):
    """Do logits leave the range of an activation, for codes of images, of the prior, and far from both?"""
    likelihood = subject.model.likelihood
    if not isinstance(likelihood, (likelihoods.Bernoulli, likelihoods.ContinuousBernoulli)):
        return Finding(DECODER, "ok", {}, "Means and locations may be bounded.")
    z = subject.model.lowest(subject.z[0][: subject.distinct])
    wide = rng.normal(size=z.shape)
    labels = None if subject.labels is None else subject.labels[: len(z)]
    params = np.concatenate([subject.params(codes, labels) for codes in (z, wide, 10 * wide, 100 * wide)])
    numbers = {"lowest logit": float(params.min()), "highest logit": float(params.max())}
    ending, bounds = final_activation(subject.model.decoder), _bounds(params)
    if ending in BOUNDED:
        bounds = f"bounded by {ending}"
    if bounds and ending != "linear":
        advice = (
            f"What the decoder returns is {bounds}, whatever z: it ends in an activation, and is taken for logits. If "
            "that is a sigmoid, no pixel gets a probability outside of 0.5 to 0.73, and the loss stays near 0.69 nats "
            "a pixel. Let it end in a layer without an activation."
        )
        return Finding(DECODER, "error", numbers, advice)
    return Finding(DECODER, "ok", numbers)


def _bounds(values):
    """The range of an activation that all values stay in, in words, or None."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-3:  # a constant
        return None
    if 0 <= low:
        return "from 0 to 1, like a sigmoid" if high <= 1 else "never below 0, like softplus or relu"
    return "from -1 to 1, like tanh" if -1 <= low and high <= 1 and max(-low, high) > 0.99 else None


def final_activation(network, index=0):
    """Name of the activation of the layer that an output comes from, or None where that cannot be seen."""
    try:
        tensor = network.outputs[index]
        layers = {id(layer.output): layer for layer in network.layers if isinstance(layer.output, keras.KerasTensor)}
        layer = layers.get(id(tensor))
        while type(layer).__name__ in RESHAPING:
            layer = layers.get(id(layer.input))
    except (AttributeError, ValueError, RuntimeError):
        return None
    activation = getattr(layer, "activation", None)
    return getattr(activation, "__name__", None)


def check_health(z_mean, terms):
    """Do the latents carry anything? Two findings."""
    active = latents.active_units(z_mean)
    kl = float(terms["kl_loss"].mean())
    numbers = {"active_units": int(active.sum()), "latent_dim": len(active), "kl_loss": kl}
    dead = [int(index) for index in np.flatnonzero(~active)]
    if len(dead) == len(active) or abs(kl) < COLLAPSED:
        advice = (
            "Posterior collapse: the decoder ignores z. Try a warm-up of the KL (--warmup-steps), free bits "
            "(--free-bits), a beta below 1, a weaker decoder, or a lower learning rate."
        )
        yield Finding(COLLAPSE, "warning", numbers, advice)
    else:
        yield Finding(COLLAPSE, "ok", numbers)
    if dead:
        advice = (
            "They cost nothing and carry nothing: a smaller latent_dim does as well; a warm-up of the KL or "
            "--objective iwae keeps more of them alive."
        )
        yield Finding(DEAD, "warning", {"dead": dead}, advice)
    else:
        yield Finding(DEAD, "ok", numbers)
