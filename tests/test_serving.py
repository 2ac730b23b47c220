"""The export: what is served equals what was trained, in processes that know neither keras nor this package."""

import functools
import io
import json
import logging
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from cases import CASES, build, images, labels, over
from PIL import Image
from serving_exports import all_signatures, assert_same, export
from test_serving_noise import normal_by_hand

from keras_vae import VAE, Autoencoder
from keras_vae.config import InputError
from keras_vae.serving import export_saved_models, signatures, verify, verify_export, warmup


@pytest.fixture(scope="module")
def loaded(exported):
    return {name: tf.saved_model.load(path) for name, path in exported[1].paths.items()}


def call(loaded, model, signature, **inputs):
    """Answers as numpy arrays, through what a TensorFlow script would call."""
    answer = loaded[model].signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in answer.items()}


def batch(count=5, shape=(8, 12, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


# -- every model ---------------------------------------------------------------------------------------------------


# Cases whose graph is that of an earlier one: they differ from it in how they are trained.
SAME_GRAPH = {
    "beta", "warm-up", "free-bits", "iwae", "dreg", "miwae", "beta-tc", "sparse-autoencoder", "denoising-gaussian",
}  # fmt: skip


# One for each kind of graph.
KINDS = {
    "mlp", "conv-not-square", "gaussian-mixture", "full-covariance-iwae", "hierarchical-three-layers",
    "conditional-conv",
}  # fmt: skip


@pytest.fixture(scope="module")
def export_of(tmp_path_factory):
    """Name of a case -> (case, model, `Export`). The weights of the prior are moved from where they start."""

    @functools.cache
    def exported(name):
        case = next(case for case in CASES if case.name == name)
        model, rng = build(case), np.random.default_rng(0)
        for weight in model.prior.trainable_weights if isinstance(model, VAE) else ():
            weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
        return case, model, export_saved_models(model, tmp_path_factory.mktemp(name))

    return exported


@over([case for case in CASES if case.name not in SAME_GRAPH], quick=KINDS)
def test_serve_equals_keras_for_any_batch_size(case, export_of):
    _, model, written = export_of(case.name)
    assert (pathlib.Path(written.directory) / "models.config").exists()
    for count in (1, 7):
        pixels, y = images(case, count), labels(case, count)
        encoded = model.encode(pixels, *y)
        heads = model.posterior.head_shapes((3,)) if isinstance(model, VAE) else ["z"]
        expected = dict(zip(heads, encoded if isinstance(encoded, tuple) else [encoded], strict=True))
        z = next(iter(expected.values())).numpy()
        with verify.Model(written.paths["encoder"]) as encoder, verify.Model(written.paths["decoder"]) as decoder:
            label = {"label": y[0]} if y else {}
            name = "image" if len(case.shape) == 3 else "x"
            answer = encoder.run("serve", {name: pixels, **label})
            assert_same(answer, {head: value.numpy() for head, value in expected.items()})
            assert_same(decoder.run("serve", {"z": z, **label}), {name: model.decode(z, *y).numpy()})
    assert ("vae" in written.paths) == isinstance(model, VAE)


def test_verification_of_a_good_export_finds_nothing_in_many_steps(exported):
    steps = []
    assert verify.check_export(exported[1].directory, steps.append) == []
    assert len(steps) > 150 and "encoder: serve: image: NaN" in steps


@pytest.mark.slow
def test_verification_in_a_process_of_its_own(exported):
    steps = []
    assert verify_export(exported[1].directory, steps.append) == []
    assert len(steps) > 150 and "encoder: serve: image: NaN" in steps


# -- each signature against an oracle -------------------------------------------------------------------------------


def test_uint8_images_are_scaled_in_the_graph(exported, loaded):
    model, _, _ = exported
    pixels = batch()
    z_mean, z_log_var = model.encode(pixels.astype("float32") / 255)
    answer = call(loaded, "encoder", "encode_uint8", image=pixels)
    assert_same(answer, {"z_mean": z_mean.numpy(), "z_log_var": z_log_var.numpy()})


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_image_files_are_read_as_pillow_reads_them(loaded, format):
    pixels = batch()
    if format == "JPEG":  # smooth, so that decoders that round differently stay together
        pixels = np.repeat(np.linspace(0, 255, 12, dtype=np.uint8)[None, None, :, None], 5, 0).repeat(8, 1).repeat(3, 3)
    files = []
    for image in pixels:
        files.append(io.BytesIO())
        Image.fromarray(image).save(files[-1], format)
    read = np.stack([np.asarray(Image.open(file)) for file in files])
    answer = call(loaded, "encoder", "encode_png", image_bytes=[file.getvalue() for file in files])
    assert_same(answer, call(loaded, "encoder", "encode_uint8", image=read), atol=1e-5 if format == "PNG" else 5e-3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16"])
def test_pngs_of_other_colours_are_converted(loaded, mode):
    grey = Image.fromarray(batch(1, (8, 12))[0])
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    answer = call(loaded, "encoder", "encode_png", image_bytes=[file.getvalue()])
    expected = np.asarray(grey.convert("RGB"))[None]
    assert_same(answer, call(loaded, "encoder", "encode_uint8", image=expected))


def test_sample_draws_z_around_the_mean_by_each_rows_seed(loaded):
    pixels = batch().astype("float32") / 255
    seeds = np.array([3, 1, 4, 1, 2**53 - 1])
    answer = call(loaded, "encoder", "sample", image=pixels, seed=seeds)
    eps = np.array([normal_by_hand(int(seed), "posterior", 3) for seed in seeds])
    expected = answer["z_mean"] + np.exp(0.5 * answer["z_log_var"]) * eps
    np.testing.assert_allclose(answer["z"], expected, rtol=1e-5, atol=1e-5)
    served = call(loaded, "encoder", "serve", image=pixels)
    assert_same({name: answer[name] for name in served}, served)


def test_generate_decodes_draws_from_the_prior(loaded):
    seeds = np.array([0, 7, 2**40])
    answer = call(loaded, "decoder", "generate", seed=seeds)
    np.testing.assert_allclose(answer["z"], [normal_by_hand(int(seed), "prior", 3) for seed in seeds], rtol=1e-5)
    np.testing.assert_allclose(
        answer["image"], call(loaded, "decoder", "serve", z=answer["z"])["image"], rtol=1e-5, atol=1e-6
    )


def test_a_seed_gives_the_same_row_whatever_batch_it_arrives_in(loaded):
    pixels, seeds = batch(40).astype("float32") / 255, np.arange(40)
    requests = [
        ("encoder", "sample", {"image": pixels, "seed": seeds}),
        ("decoder", "generate", {"seed": seeds}),
        ("vae", "score", {"image": pixels, "seed": seeds}),
    ]
    for model, signature, inputs in requests:
        together = call(loaded, model, signature, **inputs)
        order = np.random.default_rng(0).permutation(40)
        shuffled = call(loaded, model, signature, **{name: value[order] for name, value in inputs.items()})
        for name, value in together.items():
            np.testing.assert_allclose(shuffled[name], value[order], rtol=1e-5, atol=1e-6)
        for row in (0, 17, 39):
            alone = call(loaded, model, signature, **{name: value[row : row + 1] for name, value in inputs.items()})
            for name, value in together.items():
                np.testing.assert_allclose(alone[name], value[row : row + 1], rtol=1e-5, atol=1e-6)


def test_decoded_files_hold_the_decoded_pixels(loaded):
    z = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    image = call(loaded, "decoder", "serve", z=z)["image"]
    pixels = call(loaded, "decoder", "decode_uint8", z=z)["image"]
    files = call(loaded, "decoder", "decode_png", z=z)["image_bytes"]
    np.testing.assert_allclose(pixels, image * 255, atol=0.5 + 1e-4)
    np.testing.assert_array_equal(np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files]), pixels)


def test_reconstruct_is_decode_of_the_mean(exported, loaded):
    pixels = batch().astype("float32") / 255
    assert_same(call(loaded, "vae", "reconstruct", image=pixels), {"image": exported[0].reconstruct(pixels).numpy()})


@pytest.mark.parametrize("name", ["mlp", "beta", "gaussian-learned"])
def test_score_is_the_elbo_with_beta_one(name, export_of):
    case, model, written = export_of(name)
    x, seeds = images(case, 6), np.arange(6)
    with verify.Model(written.paths["vae"]) as served:
        elbo = served.run("score", {"image": x, "seed": seeds})["score"]
    z_mean, z_log_var = (value.numpy().astype("float64") for value in model.encode(x))
    eps = np.array([normal_by_hand(int(seed), "posterior", z_mean.shape[1]) for seed in seeds])
    z = z_mean + np.exp(z_log_var / 2) * eps
    params = np.asarray(model.decoder(z.astype("float32")), "float64")
    if name == "gaussian-learned":
        scale = np.exp(float(model.likelihood.log_scale))
        log_prob = -0.5 * ((x - params) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    else:
        log_prob = x * params - np.logaddexp(0, params)
    kl = 0.5 * np.sum(np.exp(z_log_var) + z_mean**2 - 1 - z_log_var, axis=1)
    np.testing.assert_allclose(elbo, log_prob.sum(axis=(1, 2, 3)) - kl, rtol=1e-4)


@pytest.mark.parametrize("name", ["gaussian-mixture", "hierarchical-three-layers"])
def test_a_prior_with_weights_is_served_as_it_is_in_keras(name, export_of):
    case, model, written = export_of(name)
    with verify.Model(written.paths["decoder"]) as decoder:
        served = decoder.run("generate", {"seed": np.arange(3000)})
    drawn = np.asarray(model.lowest(model.prior.sample(3000, 1)))
    for dimension in range(3):
        assert scipy.stats.ks_2samp(served["z"][:, dimension], drawn[:, dimension]).pvalue > 1e-4
    difference = np.cov(served["z"].T) - np.cov(drawn.T)
    assert np.abs(difference).max() < 0.15 * np.abs(np.cov(drawn.T)).max()
    np.testing.assert_allclose(served["image"][:5], model.decode(served["z"][:5]), atol=1e-5)

    x = np.repeat(images(case, 1), 2000, axis=0)
    with verify.Model(written.paths["vae"]) as whole:
        elbo = whole.run("score", {"image": x, "seed": np.arange(2000)})["score"]
    terms = model.loss_terms(x, training=False)
    expected = -np.asarray(terms["reconstruction_loss"] + terms["kl_loss"])
    error = np.sqrt((elbo.var() + expected.var()) / 2000)
    assert abs(elbo.mean() - expected.mean()) < 5 * error and 0 < error < 0.2


# -- what is written ------------------------------------------------------------------------------------------------


def test_signatures_are_those_of_the_contract(exported, loaded):
    _, written, contract = exported
    assert set(all_signatures(contract)) == {
        *(("encoder", name) for name in ("serve", "encode_uint8", "encode_png", "sample")),
        *(("decoder", name) for name in ("serve", "decode_uint8", "decode_png", "generate")),
        *(("vae", name) for name in ("reconstruct", "score")),
    }
    assert contract["version"] == written.version == 1
    for name, entry in contract["models"].items():
        assert set(loaded[name].signatures) == {"serving_default", *entry["signatures"]}
        for signature in entry["signatures"].values():
            assert signature["description"]
            for field in (*signature["inputs"].values(), *signature["outputs"].values()):
                assert field["unit"] and field["description"] and field["shape"][0] is None


def test_an_autoencoder_has_no_signature_that_draws(tmp_path):
    case = next(case for case in CASES if case.name == "autoencoder")
    _, _, contract = export(tmp_path, case)
    assert all_signatures(contract) == [
        *(("encoder", name) for name in ("serve", "encode_uint8", "encode_png")),
        *(("decoder", name) for name in ("serve", "decode_uint8", "decode_png")),
    ]


def test_a_process_without_keras_reproduces_the_models_output(exported, tmp_path):
    model, written, _ = exported
    pixels = batch().astype("float32") / 255
    np.save(tmp_path / "images.npy", pixels)
    script = f"""
        import sys
        sys.modules.update({{"keras": None, "keras_vae": None}})
        import numpy as np, tensorflow as tf
        encoder = tf.saved_model.load({written.paths["encoder"]!r}).signatures["serve"]
        decoder = tf.saved_model.load({written.paths["decoder"]!r}).signatures["serve"]
        code = encoder(image=np.load({str(tmp_path / "images.npy")!r}))
        image = decoder(z=code["z_mean"])["image"]
        np.savez({str(tmp_path / "answer.npz")!r}, image=image, **code)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
    answer = np.load(tmp_path / "answer.npz")
    z_mean, z_log_var = model.encode(pixels)
    expected = {"z_mean": z_mean, "z_log_var": z_log_var, "image": model.decode(z_mean)}
    assert_same(dict(answer), {name: value.numpy() for name, value in expected.items()})


def test_the_export_is_a_layer_of_another_keras_model(exported):
    model, written, _ = exported
    encode = keras.layers.TFSMLayer(written.paths["encoder"], call_endpoint="serve")
    decode = keras.layers.TFSMLayer(written.paths["decoder"])
    pixels = batch().astype("float32") / 255
    image = keras.Input((8, 12, 3), name="image")
    whole = keras.Model(image, decode(encode(image)["z_mean"])["image"])
    np.testing.assert_allclose(whole.predict(pixels, verbose=0), model.reconstruct(pixels), atol=1e-5)


@pytest.mark.slow
def test_the_scripts_in_the_docs_run(tmp_path):
    export_saved_models(VAE.from_preset("conv"), tmp_path / "export")
    page = pathlib.Path(__file__).resolve().parents[1] / "docs" / "serving.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    checks = ["assert image.shape == (5, 28, 28, 1)", "assert classifier(tf.zeros((2, 28, 28, 1))).shape == (2, 10)"]
    script = "\n".join(line for pair in zip(blocks, checks, strict=True) for line in pair)
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


def test_nothing_of_the_machine_is_in_the_graph(exported):
    for path in exported[1].paths.values():
        graph = (pathlib.Path(path) / "saved_model.pb").read_bytes()
        assert str(pathlib.Path(signatures.__file__).parent).encode() not in graph


def test_warmup_without_the_extra_says_what_is_missing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(warmup, "available", lambda: False)
    with caplog.at_level(logging.WARNING, "keras_vae"):
        _, written, _ = export(tmp_path, CASES[0])
    assert "pip install 'keras-vae[serving]'" in caplog.text
    assert not (pathlib.Path(written.paths["encoder"]) / warmup.FILE).exists()
    assert verify.check_export(str(tmp_path)) == []


def test_the_servers_files_are_what_its_parsers_take(exported):
    model_server_config_pb2 = pytest.importorskip(
        "tensorflow_serving.config.model_server_config_pb2", reason="tensorflow-serving-api is not installed"
    )
    from google.protobuf import text_format

    text = (pathlib.Path(exported[1].directory) / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    assert [entry.name for entry in config.model_config_list.config] == ["encoder", "decoder", "vae"]
    assert [entry.base_path for entry in config.model_config_list.config] == [
        "/models/encoder", "/models/decoder", "/models/vae",
    ]  # fmt: skip


# -- other formats --------------------------------------------------------------------------------------------------


@over(
    [
        case
        for case in CASES
        if case.name in {"mlp", "conv-not-square", "resnet", "continuous-bernoulli", "autoencoder"}
    ],
    quick={"resnet", "autoencoder"},
)
def test_onnx_equals_keras(case, tmp_path):
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model = build(case)
    written = export_saved_models(model, tmp_path, format="onnx")
    folder, x = pathlib.Path(written.paths["onnx"]), images(case, 5)
    encoder, decoder = (onnxruntime.InferenceSession(folder / f"{half}.onnx") for half in ("encoder", "decoder"))
    z = model.encode(x)[0] if isinstance(model, VAE) else model.encode(x)
    output = "z_mean" if isinstance(model, VAE) else "z"
    np.testing.assert_allclose(encoder.run([output], {"image": x})[0], z, atol=1e-5)
    np.testing.assert_allclose(decoder.run(["image"], {"z": z.numpy()})[0], model.decode(z), atol=1e-5)


@over(
    [case for case in CASES if case.name in {"mlp", "conv-not-square", "resnet", "gated", "autoencoder"}],
    quick={"resnet", "autoencoder"},
)
def test_litert_equals_keras(case, tmp_path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    model = build(case)
    written = export_saved_models(model, tmp_path, format="litert")
    x, runners = images(case, 5), {}
    for half in ("encoder", "decoder"):
        file = pathlib.Path(written.paths["litert"]) / f"{half}.tflite"
        runners[half] = interpreter.Interpreter(model_path=str(file)).get_signature_runner("serve")
    z = model.encode(x)[0] if isinstance(model, VAE) else model.encode(x)
    output = "z_mean" if isinstance(model, VAE) else "z"
    np.testing.assert_allclose(runners["encoder"](image=x)[output], z, atol=1e-5)
    np.testing.assert_allclose(runners["decoder"](z=z.numpy())["image"], model.decode(z), atol=1e-5)


# -- bad input ------------------------------------------------------------------------------------------------------


def test_a_package_that_is_missing_is_named_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(InputError, match="pip install tf2onnx onnxruntime"):
        export_saved_models(build(CASES[0]), tmp_path / "new", format="onnx")
    assert not (tmp_path / "new").exists()


def test_unknown_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="Expected one of: saved_model, onnx, litert"):
        export_saved_models(build(CASES[0]), tmp_path / "new", format="pickle")
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write the export to"):
        export_saved_models(build(CASES[0]), tmp_path / "file" / "export")


def test_a_model_without_weights_is_refused(tmp_path):
    networks = [keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)]) for _ in range(2)]
    with pytest.raises(InputError, match="no weights yet"):
        export_saved_models(Autoencoder(*networks), tmp_path)


def test_another_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="Only a VAE or an Autoencoder"):
        export_saved_models(keras.Sequential(), tmp_path)


def test_a_model_whose_weights_are_nan_is_not_exported(tmp_path):
    model = build(CASES[0])
    model.decoder.set_weights([weight * np.nan for weight in model.decoder.get_weights()])
    with pytest.raises(InputError, match="NaN or infinite"):
        export_saved_models(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_export_that_fails_its_checks_does_not_appear(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "TOLERANCE", -1.0)
    with pytest.raises(InputError, match=r"failed its checks, and nothing was written: .* \(and \d+ more\)"):
        export_saved_models(build(CASES[0]), tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [".lock"]


def test_a_disk_that_is_full_leaves_one_line_and_no_version(tmp_path):
    model, limit = VAE.from_preset("mlp"), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limit[1]))
    try:
        with pytest.raises(InputError) as refusal:
            export_saved_models(model, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(refusal.value).startswith(f"Cannot write the export to {tmp_path}: ")
    assert "\n" not in str(refusal.value)
    assert [entry.name for entry in tmp_path.iterdir()] == [".lock"]


# -- verification finds what is wrong -------------------------------------------------------------------------------


def spoil_weights(path):
    file = path / "variables" / "variables.data-00000-of-00001"
    data = np.frombuffer(file.read_bytes(), np.uint8).copy()
    data[100:104] = np.frombuffer(np.float32(3).tobytes(), np.uint8)
    file.write_bytes(data.tobytes())


def spoil_golden(path):
    contract = path.parent.parent / "contract.json"
    values = json.loads(contract.read_text())
    values["models"]["decoder"]["signatures"]["serve"]["golden"]["outputs"]["image"][0][0][0][0] += 0.01
    contract.write_text(json.dumps(values))


SPOILERS = {
    "a weight": (spoil_weights, "cannot be read: DataLossError"),
    "a golden vector": (spoil_golden, "serve: golden output image is off by 0.01"),
    "the graph": (lambda path: (path / "saved_model.pb").unlink(), "saved_model.pb is missing"),
    "the weights": (lambda path: (path / "variables" / "variables.index").unlink(), "variables.index is missing"),
    "the contract": (lambda path: (path.parent.parent / "contract.json").write_text("{"), "cannot be read"),
    "warmup": (lambda path: (path / verify.WARMUP).unlink(), "tf_serving_warmup_requests is missing"),
    "size": (lambda path: (path / "assets.extra" / "video").write_bytes(bytes(10**6)), "bytes, more than"),
    "a newer version": (lambda path: path.rename(path.with_name("9")), "9 is newer|decoder/1 is missing"),
}


@pytest.mark.parametrize("what", SPOILERS)
def test_verification_finds(what, small_export, tmp_path):
    spoilt = shutil.copytree(small_export, tmp_path / "export")
    spoil, message = SPOILERS[what]
    spoil(spoilt / "decoder" / "1")
    failures = verify.check_export(str(spoilt))
    assert any(re.search(message, failure) for failure in failures), failures


def test_verification_finds_python_randomness_and_xla(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)])
    def draw(x):
        return {"y": x + tf.random.normal(tf.shape(x)) + tf.numpy_function(lambda: np.float32(1), [], tf.float32)}

    compiled = tf.function(draw.python_function, jit_compile=True, input_signature=draw.input_signature)
    tf.saved_model.save(tf.Module(), str(tmp_path), {"draw": draw, "compiled": compiled})
    failures = " ".join(verify._check_graph(str(tmp_path)))
    assert "runs Python" in failures and "draws from a state" in failures and "asks for XLA" in failures


def test_a_failing_verification_has_an_exit_code_and_a_list(tmp_path, capsys):
    assert verify.main([str(tmp_path)]) == 1
    (failure,) = json.loads(capsys.readouterr().out.splitlines()[-1])["failures"]
    assert "this is no export" in failure


def test_a_model_of_thresholded_images_is_served_thresholded_images(tmp_path):
    model = build(CASES[1])
    export = export_saved_models(model, tmp_path, binarization="threshold")
    pixels = batch(shape=(8, 8, 1))
    served = call({"encoder": tf.saved_model.load(export.paths["encoder"])}, "encoder", "encode_uint8", image=pixels)
    z_mean, _ = model.encode((pixels > 127).astype("float32"))
    np.testing.assert_allclose(served["z_mean"], z_mean, atol=1e-5)
    grey, _ = model.encode((pixels / 255).astype("float32"))
    assert np.abs(grey - z_mean).max() > 1e-3
