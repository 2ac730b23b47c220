"""A small request cannot take the server's memory: files that unpack to much, and rows that become images."""

import contextlib
import io
import json
import pathlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from cases import build
from PIL import Image
from serving_exports import CONV_VAE

import keras_vae
from keras_vae import layers
from keras_vae.serving import checks, contract, export_saved_models, limits, signatures, verify

SHAPE = (8, 12, 3)


@pytest.fixture(scope="module")
def encoder(exported):
    with verify.Model(exported[1].paths["encoder"]) as model:
        yield model


@contextlib.contextmanager
def peak_memory():
    """Yields a function that says by how many bytes the process grew at most within the block."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before = high_water()
    grown = []
    yield lambda: grown[0]
    grown.append(high_water() - before)


def high_water():
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*, size=(12, 8), depth=8, colour=2, before=b"", between=b"", pixels=None, after=b"", end=True):
    """A PNG file, by default black and of the export's size, with chunks of one's own in three places."""
    pixels = zlib.compress(bytes(8 * (1 + 12 * 3))) if pixels is None else pixels
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    file = checks.PNG_SIGNATURE + before + header + between + chunk(b"IDAT", pixels) + after
    return file + (chunk(b"IEND", b"") if end else b"")


TEXT = zlib.compress(b"a" * 7_900_000, 9)  # libpng unpacks a comment of up to 8 MB
COMMENTS = {
    "zTXt": chunk(b"zTXt", b"k\0\0" + TEXT) * 20,
    "iTXt": chunk(b"iTXt", b"k\0\1\0\0\0" + TEXT) * 20,
}
HIDDEN = chunk(b"teSt", struct.pack(">II", 12, 8))
BOMBS = {
    "header behind another chunk": (
        png(size=(23170, 23170), depth=1, colour=0, before=HIDDEN),
        "begin with its header",
    ),
    "header of another length": (png().replace(b"\0\0\0\rIHDR", b"\0\0\0\x0eIHDR"), "begin with its header"),
    "200 MB of surplus pixels": (png(pixels=zlib.compress(bytes(200_000_000), 9)), "at most 1960 bytes of pixels"),
    "two headers": (png(between=chunk(b"IHDR", struct.pack(">IIBBBBB", 23170, 23170, 1, 0, 0, 0, 0))), "Invalid PNG"),
    "a chunk longer than the file": (png()[:-20], "longer than the file"),
    "a chunk of negative length": (png(between=struct.pack(">i", -24) + b"teSt"), "longer than the file"),
    "no end of chunks": (png(between=chunk(b"teSt", b"") * 20_000), "at most 101 chunks"),
    "too long a file": (png(between=chunk(b"teSt", bytes(300_000))), "files of 33 to 264448 bytes"),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_png_that_unpacks_to_much_is_refused(encoder, what):
    file, message = BOMBS[what]
    with peak_memory() as grown, pytest.raises(tf.errors.InvalidArgumentError, match=message):
        encoder.run("encode_png", {"image_bytes": np.array([png(), file], object)})
    assert grown() < 64e6


@pytest.mark.parametrize("kind", COMMENTS)
@pytest.mark.parametrize("place", ["between", "after"])
def test_a_pngs_comments_are_not_unpacked(encoder, kind, place):
    """158 MB of text in 158 KB: the file is answered like one without comments."""
    with peak_memory() as grown:
        answer = encoder.run("encode_png", {"image_bytes": np.array([png(**{place: COMMENTS[kind]})], object)})
    expected = encoder.run("encode_png", {"image_bytes": np.array([png()], object)})
    np.testing.assert_array_equal(answer["z_mean"], expected["z_mean"])
    assert grown() < 64e6


def test_the_files_of_a_request_are_limited_together(encoder):
    file = png(between=chunk(b"teSt", bytes(200_000)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 8397824 bytes in all"):
        encoder.run("encode_png", {"image_bytes": np.array([file] * 60, object)})


def test_a_jpeg_of_many_scans_is_refused(encoder):
    """Each scan of a progressive JPEG goes over the whole image again."""
    file = io.BytesIO()
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    assert set(encoder.run("encode_png", {"image_bytes": np.array([data], object)})) == {"z_mean", "z_log_var"}
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 64 scans"):
        encoder.run("encode_png", {"image_bytes": np.array([data[:-2] + 100 * scan + data[-2:]], object)})


@pytest.mark.parametrize("options", [{"interlace": 1}, {"bits": 4}, {"dpi": (72, 72)}, {"icc_profile": bytes(400)}])
def test_pngs_of_every_encoder_are_read_as_before(encoder, options):
    pixels = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = image.quantize(16) if "bits" in options else image
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    answer = encoder.run("encode_png", {"image_bytes": np.array([file.getvalue()], object)})
    expected = encoder.run("encode_uint8", {"image": np.asarray(image.convert("RGB"))[None]})
    np.testing.assert_allclose(answer["z_mean"], expected["z_mean"], atol=1e-6)


# -- rows ---------------------------------------------------------------------------------------------------------


def test_every_signature_has_a_limit_of_rows_and_keeps_it(exported):
    _, written, contract = exported
    for name, entry in contract["models"].items():
        with verify.Model(written.paths[name]) as model:
            for key, signature in entry["signatures"].items():
                request = verify.golden_request(signature)
                most = signature["max_rows"]
                many = {field: np.resize(value, (most + 1, *value.shape[1:])) for field, value in request.items()}
                with pytest.raises(tf.errors.InvalidArgumentError, match=f"must have at most {most} rows"):
                    model.run(key, many)
                few = {field: value[:100] for field, value in many.items()}
                assert all(len(value) == 100 for value in model.run(key, few).values())


def test_the_limit_follows_from_the_memory_of_the_network(exported):
    _, _, contract = exported
    generate = contract["models"]["decoder"]["signatures"]["generate"]["max_rows"]
    assert generate < contract["models"]["encoder"]["signatures"]["serve"]["max_rows"]
    wide = keras_vae.VAE.from_preset("conv", event_shape=(64, 64, 1))
    narrow = keras_vae.VAE.from_preset("conv", event_shape=(16, 16, 1))
    rows = [limits.build(vae)["decoder"]["generate"].max_rows for vae in (wide, narrow)]
    assert 10 < rows[1] / rows[0] < 20  # 16 times the pixels


def test_the_bytes_of_a_row_are_those_of_its_tensors():
    """A graph of known tensors: image [4] -> two of the same size, and one of 8 bytes a number."""

    def function(x):
        return {"y": tf.cast(tf.sin(x) + 1.0, tf.float64)}

    field = signatures.Field("float32", (4,), "none", "")
    signature = signatures.Signature(function, "", {"x": field}, {})
    # the request itself, sin, sum, cast
    assert limits.row_bytes(signature) == 4 * (4 + 4 + 4 + 8)


def test_batches_are_merged_to_no_more_rows_than_a_signature_takes(exported):
    text = (pathlib.Path(exported[1].directory) / "batching.config").read_text()
    assert "max_batch_size { value: 256 }" in text and text.endswith("allowed_batch_sizes: 256\n")
    large = keras_vae.VAE.from_preset("conv", event_shape=(128, 128, 3))
    served = limits.build(large)
    text = keras_vae.serving.export.contract.server_files(served)["batching.config"]
    most = min(entry.max_rows for entries in served.values() for entry in entries.values())
    assert most < 32 and f"max_batch_size {{ value: {most} }}" in text
    assert text.endswith(f"allowed_batch_sizes: 1\nallowed_batch_sizes: 8\nallowed_batch_sizes: {most}\n")


# -- two gigabytes ------------------------------------------------------------------------------------------------

# mem_limit of export/compose.yaml. RLIMIT_DATA counts all private writable memory, so it is no looser than that of a
# container: an allocation beyond it fails, where the container's process would be killed.
UNDER_TWO_GIGABYTES = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (2 * 2**30, 2 * 2**30))
sys.modules.update({"keras": None, "keras_vae": None})
import numpy as np, tensorflow as tf
path, signature, field, dtype, shape, rows = json.loads(sys.argv[1])
served = tf.saved_model.load(path).signatures[signature]
for count in rows:
    try:
        served(**{field: tf.zeros((count, *shape), dtype)})
        print("OK", flush=True)
    except tf.errors.OpError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "signature", "field", "rows"),
    [
        ("conv", "generate", "seed", 20_000),
        ("conv", "decode_png", "z", 100_000),
        ("mlp", "generate", "seed", 400_000),
        ("mlp", "decode_png", "z", 100_000),
    ],
)
def test_no_number_of_rows_takes_two_gigabytes(preset, signature, field, rows, tmp_path):
    written = keras_vae.export_saved_models(keras_vae.VAE.from_preset(preset), tmp_path)
    entry = json.loads((tmp_path / "contract.json").read_text())["models"]["decoder"]["signatures"][signature]
    described = entry["inputs"][field]
    counts = [entry["max_rows"], rows, entry["max_rows"] + 1, entry["max_rows"]]
    arguments = [written.paths["decoder"], signature, field, described["dtype"], described["shape"][1:], counts]
    run = subprocess.run(
        [sys.executable, "-c", UNDER_TWO_GIGABYTES, json.dumps(arguments)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == ["OK", "InvalidArgumentError", "InvalidArgumentError", "OK"]


# -- where an export runs -----------------------------------------------------------------------------------------


def test_an_export_is_made_for_the_device_that_will_run_it(tmp_path, monkeypatch):
    """A GPU in the machine that exports puts neither Keras's slow last layer nor TF32 into what a CPU serves."""
    monkeypatch.setattr(layers, "default_device", lambda: "gpu")
    precise, describe = [], contract.describe

    def watched(*arguments):
        precise.append(not tf.config.experimental.tensor_float_32_execution_enabled())
        return describe(*arguments)

    monkeypatch.setattr(contract, "describe", watched)
    model, operations = build(CONV_VAE), {}
    for device in ("cpu", "gpu"):
        written = export_saved_models(model, tmp_path, device=device)
        graph = (pathlib.Path(written.paths["decoder"]) / "saved_model.pb").read_bytes()
        operations[device] = b"DepthwiseConv2dNative" in graph
    assert operations == {"cpu": True, "gpu": False}
    assert precise == [True, True]
    assert tf.config.experimental.tensor_float_32_execution_enabled()
    with pytest.raises(keras_vae.InputError, match="Unknown device 'tpu'. Expected one of: cpu, gpu"):
        export_saved_models(model, tmp_path, device="tpu")


def test_a_verification_leaves_the_gpu_to_its_parent(exported, monkeypatch):
    started = []

    class Process(subprocess.Popen):
        def __init__(self, command, env, **options):
            started.append(env["CUDA_VISIBLE_DEVICES"])
            super().__init__([sys.executable, "-c", "print('{\"failures\": []}')"], env=env, **options)

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert keras_vae.serving.verify_export(exported[1].directory) == [] and started == ["-1"]
