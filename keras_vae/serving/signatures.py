"""The signatures of the served models: what each takes, gives and means, and the function that computes it.

A new signature is one entry in `encoder_signatures`, `decoder_signatures` or `vae_signatures`; export, contract,
warmup and verification follow.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import tensorflow as tf

from keras_vae import kl, priors
from keras_vae.conditions import Label
from keras_vae.config import InputError
from keras_vae.data import binarize
from keras_vae.event_shapes import input_name, kind_of
from keras_vae.models import VAE, Autoencoder
from keras_vae.serving import checks
from keras_vae.serving.noise import RowNoise


@dataclass(frozen=True)
class Field:
    """An input or an output: a batch of rows.

    Args:
        dtype: Name of a TensorFlow dtype.
        shape: Shape of one row.
        unit: What a value measures.
        description: One sentence.
        range: Pair (lowest, highest) of the values, or None.
        max_bytes: Dict of what is limited in a file -> most bytes of it, or None.
    """

    dtype: str
    shape: tuple[int, ...]
    unit: str
    description: str
    range: tuple | None = None
    max_bytes: dict | None = None

    def spec(self, name):
        return tf.TensorSpec((None, *self.shape), self.dtype, name)


@dataclass(frozen=True)
class Signature:
    """A function from named tensors to a dict of named tensors, with its contract."""

    function: Callable
    description: str
    inputs: dict[str, Field]
    outputs: dict[str, Field]
    max_rows: int | None = None  # what `limits.build` allows


def build(model, binarization="none", rows=None):
    """The signatures of all models that are served for `model`.

    Args:
        model: A built `VAE` or `Autoencoder`.
        binarization: How the model's training images were binarised. "threshold" is repeated for 8-bit images and
            files; of the random ones the mean, the grey image, is what is encoded.
        rows: Int, the number of rows that the networks are traced for, or None for any.

    Returns:
        Dict: name of the served model -> {name of the signature -> `Signature`}.

    Raises:
        InputError: for anything else, or a model that takes examples of more than one size.
    """
    if not isinstance(model, (VAE, Autoencoder)):
        raise InputError(f"Only a VAE or an Autoencoder can be exported. Received: {type(model).__name__}")
    if not model.built:
        raise InputError("The model has no weights yet. Call fit or build before the export.")
    if None in model.event_shape:
        raise InputError(
            "Only a model with one fixed size of its examples can be served. "
            f"Received an encoder with input shape {model.encoder.input_shape}."
        )
    # as functions of their own, so that a graph holds each network once, however many signatures use it
    x_spec, z_spec = (tf.TensorSpec((rows, *shape)) for shape in (model.event_shape, (model.latent_dim,)))
    specs = []
    if model.condition is not None:
        specs = [tf.TensorSpec((rows, *model.condition.event_shape), model.condition.event_dtype)]
    network = tf.function(
        lambda x, *condition: encode(model, x, *condition), input_signature=[x_spec, *specs], autograph=False
    )
    decode = tf.function(model.decode, input_signature=[z_spec, *specs], autograph=False)

    def served(*condition):
        def encode(x):
            return network(x, *condition)

        models = {
            "encoder": encoder_signatures(model, encode, binarization),
            "decoder": decoder_signatures(model, lambda z: decode(z, *condition)),
        }
        if isinstance(model, VAE):
            models["vae"] = vae_signatures(
                model,
                encode,
                lambda z: decode(z, *condition),
                lambda x, z: model.log_likelihood(x, z, *condition),
            )
        return models

    return served() if model.condition is None else with_condition(model.condition, served)


def with_condition(condition, served):
    """The models of `served(condition)`, every signature of which takes the condition as well."""
    name_of_input = condition.field
    if isinstance(condition, Label):
        field = Field("int64", (), "none", "The class of the example.", (0, condition.num_classes - 1))
    else:
        bounds = (-checks.MAX_ABS_X, checks.MAX_ABS_X)
        field = Field("float32", condition.event_shape, "as in training", "What is known of the example.", bounds)

    def signature_with_condition(name, key, signature):
        def function(**inputs):
            given = checks.within(name_of_input, inputs.pop(name_of_input), field.shape, *field.range)
            (first, tensor), *_ = inputs.items()
            inputs[first], given = checks.same_batch(**{first: tensor, name_of_input: given})
            return served(given)[name][key].function(**inputs)

        return replace(signature, function=function, inputs={**signature.inputs, name_of_input: field})

    return {
        name: {key: signature_with_condition(name, key, signature) for key, signature in entries.items()}
        for name, entries in served().items()
    }


def x_name(model):
    """Name of x among inputs and outputs: "image" for images, "x" for anything else."""
    return input_name(model.event_shape)


def check_x(model, x):
    """Checks x as a request brought it: shape and values."""
    return checks.within(x_name(model), x, model.event_shape, *x_fields(model)[0].range)


def encoder_signatures(model, encode, binarization):
    """Signatures of the encoder; `encode` is the function of that name below, of x alone."""
    shape, name, x_field = model.event_shape, x_name(model), x_fields(model)[0]
    codes = code_fields(model)
    threshold = binarization == "threshold"
    as_trained = " Pixels above one half become 1 and the others 0, as in training." if threshold else ""

    def prepare(image):
        return binarize(to_unit_range(image), "threshold" if threshold else "none")

    def serve(**inputs):
        return encode(check_x(model, inputs[name]))

    def encode_uint8(image):
        return encode(prepare(checks.batch("image", image, shape)))

    def encode_png(image_bytes):
        return encode(prepare(checks.image_files(image_bytes, shape)))

    def sample(seed, **inputs):
        x, seed = checks.same_batch(**{name: check_x(model, inputs[name]), "seed": checks.seeds(seed)})
        encoded = encode(x)
        z, _ = model.posterior.sample(list(encoded.values()), 1, RowNoise(seed))
        return {**encoded, "z": model.lowest(z[0])}

    signatures = {"serve": Signature(serve, "Encodes examples, without noise.", {name: x_field}, codes)}
    if is_image(model):
        signatures["encode_uint8"] = Signature(
            encode_uint8, "Encodes 8-bit images." + as_trained, {"image": uint8_field(shape)}, codes
        )
    if has_file_format(shape):
        signatures["encode_png"] = Signature(
            encode_png, "Encodes PNG or JPEG files." + as_trained, {"image_bytes": input_file_field(shape)}, codes
        )
    if isinstance(model, VAE):
        drawn = replace(z_field(model), description="A draw from q(z|x), made of the row's seed alone.")
        signatures["sample"] = Signature(
            sample, "Encodes examples and draws z from q(z|x).", {name: x_field, "seed": SEED}, {**codes, "z": drawn}
        )
    return signatures


def decoder_signatures(model, decode):
    """Signatures of the decoder; `decode` is `model.decode`."""
    shape, latent_dim, name, mean_field = model.event_shape, model.latent_dim, x_name(model), x_fields(model)[1]
    prior = model.prior.frozen() if isinstance(model, VAE) else None

    def serve(z):
        return {name: decode(checks.latent(z, latent_dim))}

    def decode_uint8(z):
        return {"image": to_uint8(decode(checks.latent(z, latent_dim)))}

    def decode_png(z):
        return {"image_bytes": tf.io.encode_png(to_uint8(decode(checks.latent(z, latent_dim))))}

    def generate(seed):
        seed = checks.seeds(seed)
        z = model.lowest(prior.sample(tf.shape(seed)[0], RowNoise(seed)))
        return {"z": z, name: decode(z)}

    z = replace(z_field(model), range=(-checks.MAX_ABS_Z, checks.MAX_ABS_Z))
    signatures = {"serve": Signature(serve, "Decodes z to the mean of p(x|z).", {"z": z}, {name: mean_field})}
    if is_image(model):
        signatures["decode_uint8"] = Signature(
            decode_uint8, "Decodes z to 8-bit images.", {"z": z}, {"image": uint8_field(shape)}
        )
    if has_file_format(shape):
        png = Field("string", (), "PNG file", "The image as a PNG file of 8 bits a channel.")
        signatures["decode_png"] = Signature(decode_png, "Decodes z to PNG files.", {"z": z}, {"image_bytes": png})
    if isinstance(model, VAE):
        drawn = replace(z_field(model), description="A draw from the prior, made of the row's seed alone.")
        signatures["generate"] = Signature(
            generate, "Draws z from the model's prior and decodes it.", {"seed": SEED}, {"z": drawn, name: mean_field}
        )
    return signatures


def vae_signatures(model, encode, decode, log_likelihood):
    """Signatures that need both halves; `encode` and `decode` as for the halves, `log_likelihood` of x and z."""
    name = x_name(model)
    x_field, mean_field = x_fields(model)

    def reconstruct(**inputs):
        heads = list(encode(check_x(model, inputs[name])).values())
        return {name: decode(model.posterior.mean(heads))}

    def score(seed, **inputs):
        x, seed = checks.same_batch(**{name: check_x(model, inputs[name]), "seed": checks.seeds(seed)})
        heads = list(encode(x).values())
        z, log_q = model.posterior.sample(heads, 1, RowNoise(seed))
        kl_groups = kl.groups(model.posterior, model.prior, heads, z, log_q)
        return {"score": log_likelihood(x, z)[0] - tf.reduce_sum(kl_groups, axis=-1)}

    grey = (
        " Under a Bernoulli likelihood, values between 0 and 1 make the first term a cross-entropy: the score then "
        "mostly follows the example's own entropy."
    ) * (model.likelihood.support == "binary")
    score_field = Field(
        "float32",
        (),
        "nats",
        "log p(x|z) - KL(q(z|x) || p(z)), beta 1 always, with one draw of z. Low values mark unusual examples. Where "
        "p(x|z) is a probability of the values it is the ELBO, a lower bound of log p(x) in expectation." + grey,
    )
    return {
        "reconstruct": Signature(
            reconstruct, "Encodes without noise and decodes.", {name: x_field}, {name: mean_field}
        ),
        "score": Signature(
            score, "An anomaly score of each example.", {name: x_field, "seed": SEED}, {"score": score_field}
        ),
    }


# -- what the signatures are made of ------------------------------------------------------------------------------


def encode(model, x, *condition):
    """x float32 [b, ...] -> dict of float32 [b, d]: the heads of q(z|x) of a VAE, z of an autoencoder."""
    encoded = model.encode(x, *condition)
    return dict(zip(head_shapes(model), encoded, strict=True)) if isinstance(model, VAE) else {"z": encoded}


def head_shapes(model):
    """Shapes of the heads of q(z|x) by name, without the batch."""
    return model.posterior.head_shapes((model.latent_dim,))


def to_unit_range(image):
    """Uint8 -> float32 in [0, 1], with the arithmetic of `keras_vae.data`."""
    return tf.cast(image, tf.float32) * (1 / 255)


def to_uint8(image):
    """Float32 -> uint8, rounded; below 0 is black and above 1 is white."""
    return tf.cast(tf.round(tf.clip_by_value(image, 0.0, 1.0) * 255.0), tf.uint8)


# What the encoder's outputs are: name -> (unit, description). A name that is not here is a parameter of q(z|x).
HEADS = defaultdict(
    lambda: ("parameter of q(z|x)", "A parameter of q(z|x)."),
    z_log_var=("log of squared latent units", "Log-variance of q(z|x)."),
)

# -- fields that several signatures share --------------------------------------------------------------------------

SEED = Field(
    "int64",
    (),
    "none",
    "The same seed gives the same row in every batch and after every load; different seeds are independent.",
    range=(0, checks.MAX_SEED),
)


def is_image(model):
    """Whether an example is an image, and not a vector or a sequence."""
    return x_name(model) == "image"


def x_fields(model):
    """The fields of x as an input, and of the mean of p(x|z)."""
    likelihood = model.likelihood
    bounded = likelihood.highest < checks.MAX_ABS_X
    bounds = (likelihood.lowest, likelihood.highest) if bounded else (-checks.MAX_ABS_X, checks.MAX_ABS_X)
    unit = "intensity, 0 black to 1 white" if is_image(model) and bounded else "as in training"
    kind = kind_of(model.event_shape)
    description = {
        "image": "An image [height, width, channels].",
        "sequence": "A sequence [steps, values].",
        "vector": "A vector of values.",
    }[kind]
    x = Field("float32", model.event_shape, unit, description, bounds)
    return x, replace(x, range=likelihood.mean_range)


def uint8_field(shape):
    return Field("uint8", shape, "intensity, 0 black to 255 white", "An image [height, width, channels].", (0, 255))


def code_fields(model):
    """The fields of what the encoder returns."""
    if isinstance(model, VAE):
        mean, *others = head_shapes(model).items()
        fields = {mean[0]: Field("float32", mean[1], latent_unit(model), "Mean of q(z|x).")}
        return fields | {name: Field("float32", shape, *HEADS[name]) for name, shape in others}
    return {"z": replace(z_field(model), description="The code. There is no noise in it.")}


def latent_unit(model):
    """What a value of z measures: only under the standard normal prior is its scale known."""
    if isinstance(model, VAE) and not isinstance(model.prior, priors.StandardNormal):
        return f"latent units; their scale is that of the learned prior, {type(model.prior).__name__}"
    return "latent units; the prior is N(0, I)" if isinstance(model, VAE) else "latent units; there is no prior"


def z_field(model):
    return Field("float32", (model.latent_dim,), latent_unit(model), "A latent vector.")


def input_file_field(shape):
    height, width, _ = shape
    return Field(
        "string",
        (),
        "PNG or JPEG file",
        f"An image {height} pixels high and {width} wide, in a file of at most {checks.max_file_bytes(shape)} bytes. "
        "Colours are converted to the model's channels; transparency is dropped.",
        max_bytes={
            "a file": checks.max_file_bytes(shape),
            "compressed pixels of a PNG": checks.max_pixel_bytes(shape),
            "all files of a request": checks.max_files_bytes(shape),
        },
    )


def has_file_format(shape):
    """Whether both PNG and JPEG know such images: grey or RGB."""
    return len(shape) == 3 and shape[-1] in (1, 3)
