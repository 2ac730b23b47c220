"""Requests to an export: its golden vectors, malformed ones, and its warmup. Without keras, as verify.py."""

import base64
import binascii
import struct
import zlib

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2


def to_array(values, dtype):
    """A field of the contract's golden vectors -> array. Bytes are {"b64": ...}, as in the server's REST interface."""
    if dtype == "string":
        return np.array([base64.b64decode(value["b64"]) for value in values], dtype=object)
    return np.array(values, dtype=dtype)


def golden_request(entry):
    """The inputs of a signature's golden vectors, as a dict of arrays."""
    return golden_arrays(entry, "inputs")


def golden_arrays(entry, side):
    """The golden "inputs" or "outputs" of a signature, as a dict of arrays."""
    return {name: to_array(values, entry[side][name]["dtype"]) for name, values in entry["golden"][side].items()}


def without_golden(contract):
    """A model's entry in contract.json without the golden vectors: what each version keeps beside its graph."""
    signatures = {
        name: {key: value for key, value in entry.items() if key != "golden"}
        for name, entry in contract["signatures"].items()
    }
    return {**contract, "signatures": signatures}


def hostile_requests(contract):
    """Malformed requests to each signature of a model, each with one thing wrong.

    Args:
        contract: A model's entry in contract.json.

    Yields:
        Triples (signature, description, dict of arrays).
    """
    for signature, entry in contract["signatures"].items():
        good = golden_request(entry)
        for name, field in entry["inputs"].items():
            for description, value in _bad_values(good[name], field):
                yield signature, f"{name}: {description}", {**good, name: value}
            if len(good) > 1:
                yield signature, f"{name}: one row more than the others", {**good, name: rows_of(good[name], 3)}
                yield signature, f"{name}: one row for several", {**good, name: good[name][:1]}
                yield signature, f"{name}: missing", {key: value for key, value in good.items() if key != name}
        many = entry["max_rows"] + 1
        yield signature, "too many rows", {name: rows_of(value, many) for name, value in good.items()}


def _bad_values(good, field):
    """Pairs (description, array)."""
    yield "no batch axis", good[0] if good.ndim > 1 else np.array(good[0], dtype=good.dtype)
    yield "one axis more", good[..., None]
    yield "scalar", np.array(good.reshape(-1)[0], dtype=good.dtype)
    yield "empty batch", good[:0]
    if good.ndim > 1:
        yield "flattened", good.reshape(-1)
        yield "last axis too long", np.concatenate([good, good], axis=-1)
        yield "last axis empty", good[..., :0]
    if good.ndim > 2:
        yield "rows flattened", good.reshape(len(good), -1)
        yield "first axis too long", np.concatenate([good, good], axis=1)
    wrong = {"float32": "float64", "uint8": "float32", "int64": "int32"}
    yield "wrong dtype", np.zeros(good.shape, wrong.get(field["dtype"], "float32"))
    if field["dtype"] in ("float32", "int64"):
        low, high = field["range"]
        if field["dtype"] == "float32":
            beyond = {"NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf, "largest": 3.4e38}
            beyond |= {"below the range": low - 0.01 * (high - low), "above the range": high + 0.01 * (high - low)}
        else:
            beyond = {"negative": -1, "smallest": -(2**63), "above the range": high + 1, "largest": 2**63 - 1}
        for description, value in beyond.items():
            bad = good.copy()
            bad.reshape(-1)[-1] = value
            yield description, bad
    if field["dtype"] == "string":
        whole = good[-1]
        width, height = struct.unpack(">II", whole[16:24])
        surplus = field["max_bytes"]["compressed pixels of a PNG"]
        files = {
            "no bytes": b"",
            "text": b"a line of text, long enough to be looked at",
            "PNG without pixels": whole[:33],
            "truncated PNG": whole[: len(whole) // 2 + 20],
            "PNG of another size": png(1, 1),
            "PNG of 2^31-1 pixels": png(2**31 - 1, 1),
            "PNG of 60,000 x 60,000": png(60_000, 60_000),
            "PNG of 23,170 x 23,170 behind another chunk": png(23_170, 23_170, 1, struct.pack(">II", width, height)),
            "PNG with surplus data": png(width, height, pixels=bytes(height * (width + 1)), surplus=surplus),
            "GIF": b"GIF89a" + bytes(64),
            "JPEG of noise": b"\xff\xd8\xff\xe0" + bytes(range(256)),
            "JPEG of 65,000 x 65,000": jpeg_header(65_000, 65_000),
            "too many bytes": whole + bytes(2**24),
        }
        for description, contents in files.items():
            yield description, np.array([*good[:-1], contents], dtype=object)


def rows_of(array, count):
    """A batch of `count` rows: those of `array`, again and again."""
    return np.resize(array, (count, *array.shape[1:]))


def png(width, height, depth=8, before=b"", pixels=bytes(2), surplus=0):
    """A grey PNG file whose header states that size, with a handful of pixels in it.

    Args:
        width, height: Ints, pixels.
        depth: Int, bits of a pixel.
        before: Content of a chunk before the header.
        pixels: The rows, each a byte and the pixels.
        surplus: Number of bytes after the compressed pixels.
    """

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", binascii.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    first = chunk(b"teSt", before) if before else b""
    pixels = chunk(b"IDAT", zlib.compress(pixels) + bytes(surplus))
    return b"\x89PNG\r\n\x1a\n" + first + header + pixels + chunk(b"IEND", b"")


def jpeg_header(width, height):
    """The beginning of a JPEG file whose frame states that size."""
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9" + bytes(32)


def parse_warmup(record):
    """A serialized PredictionLog -> (model name, signature name, dict of arrays).

    Reads the wire format itself, so that the check needs no tensorflow-serving-api: PredictionLog.predict_log = 6,
    PredictLog.request = 1; PredictRequest: model_spec = 1, inputs = 2; ModelSpec: name = 1, signature_name = 3.
    """
    request = _fields(_fields(_fields(record)[6][0])[1][0])
    spec = _fields(request[1][0])
    inputs = {}
    for entry in request[2]:
        item = _fields(entry)
        inputs[item[1][0].decode()] = tf.make_ndarray(tensor_pb2.TensorProto.FromString(item[2][0]))
    return spec[1][0].decode(), spec[3][0].decode(), inputs


def _fields(message):
    """Field number -> list of payloads of the length-delimited fields of a protocol buffer message."""
    fields, position = {}, 0
    while position < len(message):
        tag, position = _varint(message, position)
        if tag & 7 == 0:
            _, position = _varint(message, position)
        elif tag & 7 == 2:
            length, position = _varint(message, position)
            fields.setdefault(tag >> 3, []).append(message[position : position + length])
            position += length
        else:
            position += {1: 8, 5: 4}[tag & 7]
    return fields


def _varint(message, position):
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
