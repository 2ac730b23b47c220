"""The signatures of the served models: what each takes, gives and means, and the function that computes it.

A new signature is one entry in `encoder_signatures`, `decoder_signatures` or `vae_signatures`; export, contract,
warmup and verification follow.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import tensorflow as tf

from keras_vae import kl, priors
from keras_vae.config import InputError
from keras_vae.data import binarize
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
        InputError: for anything else, or a model that takes images of more than one size.
    """
    if not isinstance(model, (VAE, Autoencoder)):
        raise InputError(f"Only a VAE or an Autoencoder can be exported. Received: {type(model).__name__}")
    if not model.built:
        raise InputError("The model has no weights yet. Call fit or build before the export.")
    if None in image_shape(model):
        raise InputError(
            "Only a model with one fixed image size can be served. "
            f"Received an encoder with input shape {model.encoder.input_shape}."
        )
    # as functions of their own, so that a graph holds each network once, however many signatures use it
    pixels, code = (tf.TensorSpec((rows, *shape)) for shape in (image_shape(model), (model.latent_dim,)))
    labels = [tf.TensorSpec((rows,), tf.int64)] if model.takes_labels else []
    network = tf.function(
        lambda image, *label: encode(model, image, *label), input_signature=[pixels, *labels], autograph=False
    )
    decode = tf.function(model.decode, input_signature=[code, *labels], autograph=False)

    def served(*label):
        def encode(image):
            return network(image, *label)

        models = {
            "encoder": encoder_signatures(model, encode, binarization),
            "decoder": decoder_signatures(model, lambda z: decode(z, *label)),
        }
        if isinstance(model, VAE):
            models["vae"] = vae_signatures(
                model,
                encode,
                lambda z: decode(z, *label),
                lambda image, z: model.log_likelihood([image, *label] if label else image, z),
            )
        return models

    return with_label(model.num_classes, served) if model.takes_labels else served()


def with_label(num_classes, served):
    """The models of `served(label)`, every signature of which takes the input `label` as well."""
    field = Field("int64", (), "none", "The class of the image.", (0, num_classes - 1))

    def signature_with_label(name, key, signature):
        def function(label, **inputs):
            (first, tensor), *_ = inputs.items()
            label = checks.labels(label, num_classes)
            inputs[first], label = checks.same_batch(**{first: tensor}, label=label)
            return served(label)[name][key].function(**inputs)

        return replace(signature, function=function, inputs={**signature.inputs, "label": field})

    return {
        name: {key: signature_with_label(name, key, signature) for key, signature in entries.items()}
        for name, entries in served().items()
    }


def image_shape(model):
    """Shape of one image."""
    return model.image_shape


def encoder_signatures(model, encode, binarization):
    """Signatures of the encoder; `encode` is the function of that name below, of the image alone."""
    shape = image_shape(model)

    threshold = binarization == "threshold"
    as_trained = " Pixels above one half become 1 and the others 0, as in training." if threshold else ""

    def prepare(image):
        return binarize(to_unit_range(image), "threshold" if threshold else "none")

    def serve(image):
        return encode(checks.image(image, shape))

    def encode_uint8(image):
        return encode(prepare(checks.batch("image", image, shape)))

    def encode_png(image_bytes):
        return encode(prepare(checks.image_files(image_bytes, shape)))

    def sample(image, seed):
        image, seed = checks.same_batch(image=checks.image(image, shape), seed=checks.seeds(seed))
        encoded = encode(image)
        z, _ = model.posterior.sample(list(encoded.values()), 1, RowNoise(seed))
        return {**encoded, "z": model.lowest(z[0])}

    z = z_field(model)
    if isinstance(model, VAE):
        codes = {name: Field("float32", shape, *HEADS[name]) for name, shape in head_shapes(model).items()}
    else:
        codes = {"z": Field(**{**z, "description": "The code. There is no noise in it."})}
    pixels, pixels_uint8 = image_fields(shape)
    signatures = {
        "serve": Signature(serve, "Encodes images, without noise.", {"image": pixels}, codes),
        "encode_uint8": Signature(encode_uint8, "Encodes 8-bit images." + as_trained, {"image": pixels_uint8}, codes),
    }
    if has_file_format(shape):
        signatures["encode_png"] = Signature(
            encode_png, "Encodes PNG or JPEG files." + as_trained, {"image_bytes": input_file_field(shape)}, codes
        )
    if isinstance(model, VAE):
        outputs = {**codes, "z": Field(**{**z, "description": "A draw from q(z|x), made of the row's seed alone."})}
        signatures["sample"] = Signature(
            sample, "Encodes images and draws z from q(z|x).", {"image": pixels, "seed": SEED}, outputs
        )
    return signatures


def decoder_signatures(model, decode):
    """Signatures of the decoder; `decode` is `model.decode`."""
    shape, latent_dim = image_shape(model), model.latent_dim
    prior = model.prior.frozen() if isinstance(model, VAE) else None

    def serve(z):
        return {"image": decode(checks.latent(z, latent_dim))}

    def decode_uint8(z):
        return {"image": to_uint8(decode(checks.latent(z, latent_dim)))}

    def decode_png(z):
        return {"image_bytes": tf.io.encode_png(to_uint8(decode(checks.latent(z, latent_dim))))}

    def generate(seed):
        seed = checks.seeds(seed)
        z = model.lowest(prior.sample(tf.shape(seed)[0], RowNoise(seed)))
        return {"z": z, "image": decode(z)}

    z = Field(**z_field(model), range=(-checks.MAX_ABS_Z, checks.MAX_ABS_Z))
    pixels, pixels_uint8 = image_fields(shape)
    signatures = {
        "serve": Signature(serve, "Decodes z to the mean of p(x|z).", {"z": z}, {"image": pixels}),
        "decode_uint8": Signature(decode_uint8, "Decodes z to 8-bit images.", {"z": z}, {"image": pixels_uint8}),
    }
    if has_file_format(shape):
        png = Field("string", (), "PNG file", "The image as a PNG file of 8 bits a channel.")
        signatures["decode_png"] = Signature(decode_png, "Decodes z to PNG files.", {"z": z}, {"image_bytes": png})
    if isinstance(model, VAE):
        drawn = Field(**{**z_field(model), "description": "A draw from the prior, made of the row's seed alone."})
        signatures["generate"] = Signature(
            generate, "Draws z from the model's prior and decodes it.", {"seed": SEED}, {"z": drawn, "image": pixels}
        )
    return signatures


def vae_signatures(model, encode, decode, log_likelihood):
    """Signatures that need both halves; `encode` and `decode` as for the halves, `log_likelihood` of image and z."""
    shape = image_shape(model)

    def reconstruct(image):
        heads = list(encode(checks.image(image, shape)).values())
        return {"image": decode(model.posterior.mean(heads))}

    def score(image, seed):
        image, seed = checks.same_batch(image=checks.image(image, shape), seed=checks.seeds(seed))
        heads = list(encode(image).values())
        z, log_q = model.posterior.sample(heads, 1, RowNoise(seed))
        kl_groups = kl.groups(model.posterior, model.prior, heads, z, log_q)
        return {"score": log_likelihood(image, z)[0] - tf.reduce_sum(kl_groups, axis=-1)}

    pixels, _ = image_fields(shape)
    score_field = Field(
        "float32",
        (),
        "nats",
        "log p(x|z) - KL(q(z|x) || p(z)), beta 1 always, with one draw of z. Low values mark unusual images. Where "
        "p(x|z) is a probability of the pixels it is the ELBO, a lower bound of log p(x) in expectation. Under a "
        "Bernoulli likelihood, pixels between 0 and 1 make the first term a cross-entropy: the score then mostly "
        "follows the image's own entropy.",
    )
    return {
        "reconstruct": Signature(
            reconstruct, "Encodes without noise and decodes.", {"image": pixels}, {"image": pixels}
        ),
        "score": Signature(
            score, "An anomaly score of each image.", {"image": pixels, "seed": SEED}, {"score": score_field}
        ),
    }


# -- what the signatures are made of ------------------------------------------------------------------------------


def encode(model, image, *label):
    """Images float32 [b, ...] -> dict of float32 [b, d]: the heads of q(z|x) of a VAE, z of an autoencoder."""
    encoded = model.encode(image, *label)
    return dict(zip(head_shapes(model), encoded, strict=True)) if isinstance(model, VAE) else {"z": encoded}


def head_shapes(model):
    """Shapes of the heads of q(z|x) by name, without the batch."""
    return model.posterior.head_shapes((model.latent_dim,))


def to_unit_range(image):
    """Uint8 -> float32 in [0, 1], with the arithmetic of `keras_vae.data`."""
    return tf.cast(image, tf.float32) * (1 / 255)


def to_uint8(image):
    """Float32 in [0, 1] -> uint8, rounded."""
    return tf.cast(tf.round(image * 255.0), tf.uint8)


# What the encoder's outputs are: name -> (unit, description). A name that is not here is a parameter of q(z|x).
HEADS = defaultdict(
    lambda: ("parameter of q(z|x)", "A parameter of q(z|x)."),
    z_mean=("latent units; the prior has standard deviation 1", "Mean of q(z|x)."),
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


def image_fields(shape):
    """The fields of float32 and of uint8 images."""
    return (
        Field("float32", shape, "intensity, 0 black to 1 white", "An image [height, width, channels].", (0.0, 1.0)),
        Field("uint8", shape, "intensity, 0 black to 255 white", "An image [height, width, channels].", (0, 255)),
    )


def latent_unit(model):
    """What a value of z measures: only under the standard normal prior is its scale known."""
    if isinstance(model, VAE) and not isinstance(model.prior, priors.StandardNormal):
        return f"latent units; their scale is that of the learned prior, {type(model.prior).__name__}"
    return "latent units; the prior is N(0, I)" if isinstance(model, VAE) else "latent units; there is no prior"


def z_field(model):
    return {
        "dtype": "float32",
        "shape": (model.latent_dim,),
        "unit": latent_unit(model),
        "description": "A latent vector.",
    }


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
