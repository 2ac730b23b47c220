"""Checks inside the served graphs: a malformed request is answered with INVALID_ARGUMENT.

Each check takes a tensor as the request brought it and returns it for further use, so that nothing can be computed
from it before the check has passed. The shape comes first and through `tf.ensure_shape`: it is the only operation
that stops a tensor of a wrong rank before oneDNN's convolutions abort the whole server.
"""

import tensorflow as tf

# z beyond this is taken for an error of the client; everything within it decodes to finite pixels.
MAX_ABS_Z = 1e6

# Seeds are integers that survive JSON in every language, JavaScript's doubles included.
MAX_SEED = 2**53 - 1

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
HEADER_BYTES = 33  # a PNG's signature and header; any JPEG is longer


def batch(name, tensor, shape):
    """Checks rank and shape, [b, *shape] with b at least 1. Returns the tensor."""
    tensor = tf.ensure_shape(tensor, (None, *shape))
    return _require(tf.shape(tensor)[0] > 0, f"{name} must not be an empty batch", tensor)


def image(pixels, shape):
    """Checks float32 images [b, *shape]: finite and within [0, 1]."""
    pixels = batch("image", pixels, shape)
    # a NaN fails both comparisons
    in_range = tf.reduce_all(tf.logical_and(pixels >= 0.0, pixels <= 1.0))
    return _require(in_range, "image must be finite and within [0, 1]", pixels)


def latent(z, latent_dim):
    """Checks float32 codes [b, d]: finite and within MAX_ABS_Z of 0."""
    z = batch("z", z, (latent_dim,))
    return _require(tf.reduce_all(tf.abs(z) <= MAX_ABS_Z), f"z must be finite and within {MAX_ABS_Z:g} of 0", z)


def seeds(seed):
    """Checks int64 seeds [b]: from 0 to MAX_SEED."""
    seed = batch("seed", seed, ())
    in_range = tf.reduce_all(tf.logical_and(seed >= 0, seed <= MAX_SEED))
    return _require(in_range, f"seed must be from 0 to {MAX_SEED}", seed)


def labels(label, num_classes):
    """Checks int64 labels [b]: from 0 to num_classes - 1."""
    label = batch("label", label, ())
    in_range = tf.reduce_all(tf.logical_and(label >= 0, label < num_classes))
    return _require(in_range, f"label must be from 0 to {num_classes - 1}", label)


def same_batch(**tensors):
    """Checks that tensors agree on their first dimension. Returns them as a list."""
    (first, tensor), *others = tensors.items()
    for name, other in others:
        agree = tf.shape(tensor)[0] == tf.shape(other)[0]
        tensor = _require(agree, f"{first} and {name} must have the same number of rows", tensor)
        tensors[name] = _require(agree, f"{first} and {name} must have the same number of rows", other)
    return [tensor, *(tensors[name] for name, _ in others)]


def max_file_bytes(shape):
    """Longest PNG or JPEG file that is decoded for an image of `shape` (h, w, c)."""
    height, width, channels = shape
    return 2**18 + 8 * height * width * channels  # metadata, and pixels that do not compress


def image_files(image_bytes, shape):
    """Checks PNG or JPEG files, string [b], and decodes them to uint8 [b, h, w, c].

    The length and the size that the file's header states are looked at before a file is decoded: some hundred bytes
    of PNG can hold an image that fills the memory.
    """
    image_bytes = batch("image_bytes", image_bytes, ())
    spec = tf.TensorSpec(shape, tf.uint8)
    return tf.map_fn(lambda contents: _decode_file(contents, shape), image_bytes, fn_output_signature=spec)


def _decode_file(contents, shape):
    height, width, channels = shape
    length, longest = tf.strings.length(contents), max_file_bytes(shape)
    in_range = tf.logical_and(length >= HEADER_BYTES, length <= longest)
    contents = _require(in_range, f"image_bytes must be a file of {HEADER_BYTES} to {longest} bytes", contents)
    is_png = tf.equal(tf.strings.substr(contents, 0, len(PNG_SIGNATURE)), PNG_SIGNATURE)
    is_jpeg = tf.equal(tf.strings.substr(contents, 0, len(JPEG_SIGNATURE)), JPEG_SIGNATURE)
    contents = _require(tf.logical_or(is_png, is_jpeg), "image_bytes must be a PNG or a JPEG file", contents)
    size = tf.cond(is_png, lambda: _png_size(contents), lambda: tf.image.extract_jpeg_shape(contents)[:2])
    fits = tf.reduce_all(tf.equal(size, (height, width)))
    contents = _require(fits, f"image_bytes must hold an image {height} pixels high and {width} wide", contents)
    return tf.ensure_shape(tf.io.decode_png(contents, channels=channels), shape)  # the operation reads JPEG as well


def _png_size(contents):
    """Height and width, int32 [2], as a PNG's header states them; negative for 2^31 and more."""
    width_height = tf.io.decode_raw(tf.strings.substr(contents, 16, 8), tf.int32, little_endian=False)
    return width_height[::-1]


def _require(condition, message, tensor):
    """Returns `tensor` once `condition` holds. The plain operation: `tf.debugging.Assert` puts it in a branch."""
    with tf.control_dependencies([tf.raw_ops.Assert(condition=condition, data=[f"keras_vae: {message}"])]):
        return tf.identity(tensor)
