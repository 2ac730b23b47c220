"""Checks inside the served graphs: a malformed request is answered with INVALID_ARGUMENT.

Each check takes a tensor as the request brought it and returns it for further use, so that nothing can be computed
from it before the check has passed. The shape comes first and through `tf.ensure_shape`: it is the only operation
that stops a tensor of a wrong rank before oneDNN's convolutions abort the whole server.
"""

import math

import tensorflow as tf

# z beyond this is taken for an error of the client; everything within it decodes to finite pixels.
MAX_ABS_Z = 1e6

# The same for values of x that the likelihood does not bound: their squares are finite, and so is the ELBO.
MAX_ABS_X = 1e15

# Seeds are integers that survive JSON in every language, JavaScript's doubles included.
MAX_SEED = 2**53 - 1

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
PNG_HEADER = b"\x00\x00\x00\x0dIHDR"
HEADER_BYTES = 33  # a PNG's signature and header; any JPEG is longer
CHUNK_BYTES = 12  # of a PNG's chunk, beside its content
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
MAX_SCANS = 64  # an encoder writes about ten


def batch(name, tensor, shape):
    """Checks rank and shape, [b, *shape] with b at least 1. Returns the tensor."""
    tensor = tf.ensure_shape(tensor, (None, *shape))
    return _require(tf.shape(tensor)[0] > 0, f"{name} must not be an empty batch", tensor)


def within(name, tensor, shape, low, high):
    """Checks numbers [b, *shape]: finite and from `low` to `high`."""
    tensor = batch(name, tensor, shape)
    in_range = tf.reduce_all(tf.logical_and(tensor >= low, tensor <= high))  # a NaN fails both comparisons
    return _require(in_range, f"{name} must be finite and within [{low:g}, {high:g}]", tensor)


def latent(z, latent_dim):
    """Checks float32 codes [b, d]: finite and within MAX_ABS_Z of 0."""
    z = batch("z", z, (latent_dim,))
    return _require(tf.reduce_all(tf.abs(z) <= MAX_ABS_Z), f"z must be finite and within {MAX_ABS_Z:g} of 0", z)


def seeds(seed):
    """Checks int64 seeds [b]: from 0 to MAX_SEED."""
    seed = batch("seed", seed, ())
    in_range = tf.reduce_all(tf.logical_and(seed >= 0, seed <= MAX_SEED))
    return _require(in_range, f"seed must be from 0 to {MAX_SEED}", seed)


def same_batch(**tensors):
    """Checks that tensors agree on their first dimension. Returns them as a list."""
    (first, tensor), *others = tensors.items()
    for name, other in others:
        agree = tf.shape(tensor)[0] == tf.shape(other)[0]
        tensor = _require(agree, f"{first} and {name} must have the same number of rows", tensor)
        tensors[name] = _require(agree, f"{first} and {name} must have the same number of rows", other)
    return [tensor, *(tensors[name] for name, _ in others)]


def rows(name, tensor, shape, max_rows):
    """Checks rank and shape, [b, *shape] with b at most `max_rows`. Returns the tensor."""
    tensor = tf.ensure_shape(tensor, (None, *shape))
    return _require(tf.shape(tensor)[0] <= max_rows, f"{name} must have at most {max_rows} rows", tensor)


# -- image files --------------------------------------------------------------------------------------------------


def max_file_bytes(shape):
    """Longest PNG or JPEG file that is decoded for an image of `shape` (h, w, c)."""
    height, width, channels = shape
    return 2**18 + 8 * height * width * channels  # metadata, and pixels that do not compress


def max_files_bytes(shape):
    """Longest that the files of one request may be together: a file costs time by its length, not by its pixels."""
    return 2**23 + 32 * math.prod(shape)


def max_pixel_bytes(shape):
    """Most compressed bytes that a PNG needs: 16 bits of four channels, a byte a row, and the compressor's own."""
    height, width, _ = shape
    return 1024 + 9 * height * (width + 1)


def image_files(image_bytes, shape):
    """Checks PNG or JPEG files, string [b], and decodes them to uint8 [b, h, w, c], one after the other.

    A file of some hundred bytes can hold an image, or a comment, that fills the memory. So a file's length and the size
    that its header states are looked at before it is decoded, and of a PNG only the chunks that make the pixels are.
    """
    files = batch("image_bytes", image_bytes, ())
    length, longest, all_files = tf.strings.length(files), max_file_bytes(shape), max_files_bytes(shape)
    in_range = tf.reduce_all((length >= HEADER_BYTES) & (length <= longest))
    files = _require(in_range, f"image_bytes must be files of {HEADER_BYTES} to {longest} bytes", files)
    total = tf.reduce_sum(tf.cast(length, tf.int64))
    files = _require(total <= all_files, f"image_bytes must be at most {all_files} bytes in all", files)
    is_png = tf.strings.substr(files, 0, len(PNG_SIGNATURE)) == PNG_SIGNATURE
    is_jpeg = tf.strings.substr(files, 0, len(JPEG_SIGNATURE)) == JPEG_SIGNATURE
    files = _require(tf.reduce_all(is_png | is_jpeg), "image_bytes must be PNG or JPEG files", files)
    files = _pixel_chunks(_check_png_header(files, is_png, shape), is_png, shape)

    def decode(file, is_jpeg):
        file = tf.cond(is_jpeg, lambda: _check_jpeg(file, shape), lambda: file)
        return tf.ensure_shape(tf.io.decode_png(file, channels=shape[2]), shape)  # the operation reads JPEG as well

    spec = tf.TensorSpec(shape, tf.uint8)
    return tf.map_fn(lambda pair: decode(*pair), (files, is_jpeg), parallel_iterations=1, fn_output_signature=spec)


def _size_error(shape):
    return f"image_bytes must hold an image {shape[0]} pixels high and {shape[1]} wide"


def _check_png_header(files, is_png, shape):
    """Files of which each PNG begins with a header, as the decoder skips to it, and that states the model's size."""
    starts = tf.strings.substr(files, 8, 8) == PNG_HEADER
    files = _require(tf.reduce_all(starts | ~is_png), "image_bytes: a PNG must begin with its header, IHDR", files)
    width_height = tf.io.decode_raw(tf.strings.substr(files, 16, 8), tf.int32, little_endian=False)
    fits = tf.reduce_all(width_height == (shape[1], shape[0]), axis=-1)
    return _require(tf.reduce_all(fits | ~is_png), _size_error(shape), files)


def _pixel_chunks(files, is_png, shape):
    """Each PNG without its text, colour profile and whatever else is not pixels; the decoder would unpack all of it.

    Walks along the chunks of all files at once. A chunk is its length, four letters, that many bytes, and a checksum.
    """
    length, longest = tf.strings.length(files), max_pixel_bytes(shape)
    max_chunks = 100 + longest // 1024

    def step(position, kept, pixel_bytes):
        here = position <= length - CHUNK_BYTES
        start = tf.where(here, position, 0)
        four = tf.fill(tf.shape(start), 4)
        size = tf.io.decode_raw(tf.strings.substr(files, start, four), tf.int32, little_endian=False)[:, 0]
        whole = (size >= 0) & (size <= length - start - CHUNK_BYTES) | ~here
        size = _require(tf.reduce_all(whole), "image_bytes: a chunk of a PNG is longer than the file", size)
        kind = tf.strings.substr(files, start + 4, four)
        wanted = here & tf.reduce_any(kind[:, None] == PIXEL_CHUNKS, axis=-1)
        chunk = tf.strings.substr(files, start, tf.where(wanted, size + CHUNK_BYTES, 0))
        pixel_bytes += tf.where(here & (kind == "IDAT"), size, 0)
        following = tf.where(kind == "IEND", length, start + size + CHUNK_BYTES)
        return tf.where(here, following, position), tf.strings.join([kept, chunk]), pixel_bytes

    position = tf.where(is_png, len(PNG_SIGNATURE), length)
    state = (position, tf.where(is_png, PNG_SIGNATURE, files), tf.zeros_like(position))
    position, kept, pixel_bytes = tf.while_loop(
        lambda position, *_: tf.reduce_any(position <= length - CHUNK_BYTES),
        step, state, parallel_iterations=1, maximum_iterations=max_chunks,
    )  # fmt: skip
    ended = tf.reduce_all(position > length - CHUNK_BYTES)
    kept = _require(ended, f"image_bytes: a PNG must have at most {max_chunks} chunks", kept)
    in_range = tf.reduce_all(pixel_bytes <= longest)
    return _require(in_range, f"image_bytes: a PNG must have at most {longest} bytes of pixels", kept)


def _check_jpeg(file, shape):
    """A JPEG file that states the model's size; each scan of a progressive one goes over the whole image again."""
    fits = tf.reduce_all(tf.image.extract_jpeg_shape(file)[:2] == shape[:2])
    file = _require(fits, _size_error(shape), file)
    data = tf.io.decode_raw(file, tf.uint8)
    scans = tf.math.count_nonzero((data[:-1] == 0xFF) & (data[1:] == 0xDA))
    return _require(scans <= MAX_SCANS, f"image_bytes: a JPEG must have at most {MAX_SCANS} scans", file)


def _require(condition, message, tensor):
    """Returns `tensor` once `condition` holds. The plain operation: `tf.debugging.Assert` puts it in a branch."""
    with tf.control_dependencies([tf.raw_ops.Assert(condition=condition, data=[f"keras_vae: {message}"])]):
        return tf.identity(tensor)
