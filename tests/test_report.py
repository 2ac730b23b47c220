"""The report: complete in one file, true in what it computes, usable by hand, keyboard and ear, and quick."""

import html.parser
import json
import re
import shutil
import subprocess
from typing import get_args

import keras
import numpy as np
import pytest
from cases import CASES, Case, build, images, labels

from keras_vae import plotting, report
from keras_vae.config import InputError
from keras_vae.files import write_json
from keras_vae.models import build_model
from keras_vae.options import Activation
from keras_vae.presets import get_preset
from keras_vae.report.explorer import explorer_data
from keras_vae.report.published import PUBLISHED, find_published
from keras_vae.runs import Run

PIXELS = images(Case("mnist", shape=(28, 28, 1)), count=40)
LABELS = np.arange(40) % 10
BOUND = 1e-3  # of a pixel that the page decodes, against Keras


def make_report(folder, preset="mlp", **values):
    """The report of a run with untrained weights: (path of the page, model)."""
    config = get_preset(preset).config.replace(**values)
    data = {"name": "mnist", "train_images": 60000, "test_images": 10000, "event_shape": [28, 28, 1]}
    run = Run.create(folder / preset, config, {"data": data, "devices": "CPU:0", "time": "1 min 2 s of training"})
    keras.utils.set_random_seed(1)
    model = build_model(config.model, (28, 28, 1))
    model.set_weights([weight + 0.02 for weight in model.get_weights()])  # no output of 0
    results = {"loss": 104.5, "active_units": 1}
    if hasattr(model, "prior"):
        results["kl_per_dimension"] = [float(dim) for dim in range(model.latent_dim)]
    write_json(run.path / "evaluation.json", {"protocol": {"dataset": "mnist"}, "results": results})
    (run.path / "figures").mkdir()
    plotting.save(plotting.samples(PIXELS), run.path / "figures" / "samples.png")
    return report.write_report(run, model, PIXELS, LABELS), model


class Elements(html.parser.HTMLParser):
    """Every start tag of a page with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def plane_page(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("plane"), latent_dim=2)


@pytest.fixture(scope="module")
def slider_page(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("sliders"))


# The file


def test_the_page_needs_no_other_file_and_no_network(plane_page):
    elements = Elements(plane_page[0]).found
    for tag, attributes in elements:
        assert tag not in ("link", "iframe", "object", "base"), tag
        assert attributes.get("src", "data:").startswith("data:"), attributes["src"][:100]
        assert attributes.get("href", "#").startswith("#"), attributes["href"]
    policy = next(attributes["content"] for tag, attributes in elements if attributes.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert len([tag for tag, attributes in elements if tag == "img" and attributes["alt"]]) == 1


def test_the_page_says_what_was_run_and_no_path_of_the_machine(plane_page):
    page = plane_page[0].read_text()
    for words in ("60,000 training and 10,000 test", "CPU:0", "1 min 2 s", "104.50", "keras-vae publish mlp"):
        assert words in page, words
    assert str(plane_page[0].parent.parent) not in page


def test_text_from_a_config_or_a_card_cannot_become_markup(tmp_path):
    path, model = make_report(tmp_path, hidden=(4,), latent_dim=2)
    run = Run.open(path.parent)
    write_json(run.path / "evaluation.json", {"protocol": {"dataset": "<script>a</script>"}, "results": {"<b>": 1.0}})
    text = report.write_report(run, model, PIXELS, None).read_text()
    assert "<script>a" not in text and "<b>" not in text and "&lt;b&gt;" in text


def test_a_network_that_the_page_cannot_run_is_named_and_the_figures_stay(tmp_path, monkeypatch):
    from keras_vae.report import explorer

    monkeypatch.delitem(explorer.STEPS, "Dense")
    text = make_report(tmp_path, hidden=(4,))[0].read_text()
    assert "a Dense layer" in text and "<canvas" not in text and "data:image/png" in text


def test_published_figures_stand_beside_the_same_protocol_alone():
    protocol = {"dataset": "mnist", "binarization": "dynamic", "images": 10000}
    results = {"nll": 88.0, "nll_samples": 5000, "nll_images": 10000}
    assert find_published({"protocol": protocol, "results": results}) == (list(PUBLISHED), None)
    for other in ({"nll_samples": 100}, {"nll_images": 1000}):
        same, command = find_published({"protocol": protocol, "results": {**results, **other}})
        assert not same and "--samples 5000 --images 10000" in command
    for other in ({"binarization": "none"}, {"dataset": "digits"}):
        assert find_published({"protocol": {**protocol, **other}, "results": results}) == ([], None)
    assert find_published({"protocol": protocol, "results": {"loss": 88.0}}) == ([], None)


# Several runs on one page


def compared(folder, **changes):
    """Three runs and the page that compares them: (path of the page, the cards). `changes` are to the last card."""
    runs, found = [], []
    for index, name in enumerate(("a", "b", "c")):
        run = Run.create(folder / "runs" / name, get_preset("mlp").config.replace(latent_dim=3, epochs=1 + index), {})
        results = {"loss": 100.0 + index, "kl_loss": 6.5, "kl_per_dimension": [4.0 + index, 2.0, 0.5]}
        protocol = {"dataset": "<b>mnist", "estimator": "importance"}
        card = {"protocol": protocol, "model": {"loss": "the negative ELBO", "objective": "elbo"}, "results": results}
        card = {**card, **(changes if name == "c" else {})}
        write_json(run.path / "evaluation.json", card)
        (run.path / "history.csv").write_text("epoch,val_loss,val_kl_loss\n0,120.0,6.0\n1,115.0,7.0\n")
        (run.path / "figures").mkdir()
        plotting.save(plotting.samples(PIXELS[index : index + 1]), run.path / "figures" / "samples.png")
        runs, found = [*runs, run], [*found, card]
    return report.write_comparison(runs, folder / "compared.html", allow_mixed=bool(changes)), found


def test_a_comparison_shows_the_numbers_the_curves_and_the_pictures_of_each_run(tmp_path):
    page = compared(tmp_path)[0]
    text = page.read_text()
    row = re.search(r"loss \[nats per example\]</th>(.*?)</tr>", text)[1]
    assert re.findall(r">([\d.]+)</td>", row) == ["100.00", "101.00", "102.00"]
    assert re.findall(r"epochs</th>(.*?)</tr>", text) == ["<td>1</td><td>2</td><td>3</td>"]
    pictures = [(a["alt"].split(":")[0], a["src"]) for tag, a in Elements(page).found if tag == "img"]
    assert [name for name, _ in pictures] == ["Training", "a, Samples", "b, Samples", "c, Samples"]
    assert len({source for _, source in pictures}) == 4
    heights = [float(a["height"]) for tag, a in Elements(page).found if tag == "rect"]
    np.testing.assert_allclose(np.reshape(heights, (3, 3))[:, 0], 140 * np.array([4, 5, 6]) / 6, atol=0.01)  # one scale
    assert "<b>mnist" not in text and "<script" not in text and str(tmp_path) not in text
    assert not [attributes for _, attributes in Elements(page).found if attributes.get("src", "data:")[:5] != "data:"]


def test_a_comparison_of_unlike_runs_is_refused_or_says_what_differs(tmp_path):
    other = {"protocol": {"dataset": "mnist", "estimator": "prior"}, "model": {"loss": "another", "objective": "iwae"}}
    text = compared(tmp_path / "allowed", **other)[0].read_text()
    assert "were not scored alike" in text and "estimator: importance in a+b, prior in c" in text
    assert "All under one protocol" not in text and "not the same\nthing" in text
    runs = [Run.open(tmp_path / "allowed" / "runs" / name) for name in "ac"]
    with pytest.raises(InputError, match="not scored alike"):
        report.write_comparison(runs, tmp_path / "new.html")
    assert [path.name for path in tmp_path.iterdir()] == ["allowed"]


def test_runs_of_one_name_are_told_apart(tmp_path):
    compared(tmp_path / "first")
    compared(tmp_path / "second")
    runs = [Run.open(tmp_path / folder / "runs" / "a") for folder in ("first", "second")]
    text = report.write_comparison(runs, tmp_path / "page.html").read_text()
    assert "first/runs/a, second/runs/a, trained" in text


# The forward pass, without a browser


def node(program):
    """Runs network.js and `program` in Node.js; returns the JSON that it prints."""
    if shutil.which("node") is None:
        pytest.skip("The forward pass of the report is run by Node.js, which is not here.")
    source = (report.PAGE / "network.js").read_text() + program
    done = subprocess.run(["node"], input=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_every_network_computes_in_the_page_what_it_computes_in_keras():
    work, expected = [], []
    trained_in_another_way = ("objective", "prior", "beta", "warmup_steps", "free_bits", "activity_penalty")
    for case in CASES:
        if set(trained_in_another_way) & set(case.values) and not labels(case):
            continue
        model, x, given = build(case), images(case), labels(case)
        data = explorer_data(model, x, *(given or [None]))
        z = np.random.default_rng(2).normal(size=(len(x), model.latent_dim)).astype("float32")
        y = [int(label) for label in given[0]] if given else []
        work.append({"data": data, "z": z.tolist(), "x": x.reshape(len(x), -1).tolist(), "y": y})
        expected.append((case.name, model.decode(z, *given), model.code(x, *given)))
    assert len(work) >= 15 and any(each["y"] for each in work)
    answers = node(
        f"""
        console.log(JSON.stringify({json.dumps(work)}.map(({{ data, z, x, y }}) => {{
          const model = openModel(data);
          const all = (compute, rows) => rows.map((row, i) => Array.from(compute(Float32Array.from(row), y[i])));
          return [all(model.decode, z), all(model.encode, x)];
        }})));"""
    )
    for (name, decoded, codes), answer in zip(expected, answers, strict=True):
        pixels = np.clip(np.reshape(decoded, (len(decoded), -1)), 0, 1)
        np.testing.assert_allclose(answer[0], pixels, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(answer[1], codes, atol=1e-5, err_msg=name)


def test_every_activation_of_the_config_is_the_one_of_keras():
    x = np.linspace(-8, 8, 65).astype("float32")
    names = json.dumps(get_args(Activation))
    answers = node(f"console.log(JSON.stringify({names}.map((name) => {x.tolist()}.map(ACTIVATIONS[name]))));")
    for name, answer in zip(get_args(Activation), answers, strict=True):
        np.testing.assert_allclose(answer, keras.activations.get(name)(x), atol=2e-6, err_msg=name)


# The page in a browser


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("No Chromium with its driver here. On Debian: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def open_page(browser, path):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SCREENS["desktop"])
    browser.get(path.as_uri())
    settle(browser)


def settle(browser):
    """Waits for the frame that is due."""
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


SCREENS = {
    "desktop": {"width": 1100, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    "phone": {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True},
}


def state(browser):
    """(z, decoded image, image in the input) of the page, as numpy arrays."""
    settle(browser)
    z, image, pixels = browser.execute_script(
        "return [Array.from(explorer.z), Array.from(explorer.image), Array.from(readInput())]"
    )
    return (np.array(values, "float32") for values in (z, image, pixels))


def assert_decoded(browser, model):
    """What the page shows is what Keras decodes. Returns z."""
    z, image, _ = state(browser)
    np.testing.assert_allclose(image, np.ravel(model.decode(z[None])), atol=BOUND)
    shown = browser.execute_script(
        "const c = document.getElementById('output');"
        "return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
    )
    assert np.abs(np.reshape(shown, (-1, 4))[:, 1] - 255 * image).max() <= 1
    return z


def drag(browser, identifier, *points):
    """Presses at the first point and moves to the others: shares of the element's size from its upper left corner."""
    from selenium.webdriver import ActionChains

    element = browser.find_element("id", identifier)
    width, height = element.size["width"], element.size["height"]
    actions = ActionChains(browser, duration=20)
    for index, (x, y) in enumerate(points):
        actions.move_to_element_with_offset(element, (x - 0.5) * width, (y - 0.5) * height)
        if index == 0:
            actions.click_and_hold()
    actions.release().perform()


@pytest.mark.slow
def test_a_point_dragged_over_the_plane_decodes_as_in_keras(browser, plane_page):
    path, model = plane_page
    open_page(browser, path)
    drag(browser, "plane", (0.2, 0.2), (0.5, 0.5), (0.75, 0.4))
    radius = browser.execute_script("return radius")
    z = assert_decoded(browser, model)
    np.testing.assert_allclose(z, [0.5 * radius, 0.2 * radius], atol=0.02 * radius)


@pytest.mark.slow
def test_the_keyboard_moves_the_plane_and_the_sliders(browser, plane_page, slider_page):
    from selenium.webdriver import Keys

    open_page(browser, plane_page[0])
    before, *_ = state(browser)
    browser.find_element("id", "plane").send_keys(Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_LEFT)
    moved = assert_decoded(browser, plane_page[1]) - before
    assert moved[1] == pytest.approx(-2 * moved[0], rel=1e-3) and moved[1] > 0
    open_page(browser, slider_page[0])
    before, *_ = state(browser)
    browser.find_element("id", "z19").send_keys(Keys.END)
    after = assert_decoded(browser, slider_page[1])
    assert after[19] >= 3 and np.array_equal(after[:19], before[:19])
    assert "z[19] = " in browser.find_element("id", "status").text  # a screen reader says where it is


@pytest.mark.slow
def test_sliders_are_the_dimensions_with_the_most_kl(browser, slider_page):
    open_page(browser, slider_page[0])
    sliders = browser.find_elements("css selector", "#sliders input")
    assert [slider.get_attribute("id") for slider in sliders] == [f"z{dim}" for dim in range(19, 11, -1)]


@pytest.mark.slow
def test_draws_come_from_the_prior_and_decode(browser, slider_page):
    open_page(browser, slider_page[0])
    draws = []
    for _ in range(3):
        browser.find_element("id", "draw").click()
        draws.append(assert_decoded(browser, slider_page[1]))
    assert np.std(draws) == pytest.approx(1, abs=0.35)
    browser.find_element("id", "origin").click()
    assert not assert_decoded(browser, slider_page[1]).any()


@pytest.mark.slow
def test_another_class_of_the_same_code_decodes_as_in_keras(browser, tmp_path):
    from selenium.webdriver import Keys

    path, model = make_report(tmp_path, condition="label", num_classes=10, hidden=(16,), latent_dim=2)
    open_page(browser, path)
    browser.find_elements("css selector", "#examples button")[4].send_keys(Keys.ENTER)
    z, image, _ = state(browser)
    np.testing.assert_allclose(z, model.code(np.round(255 * PIXELS[4:5]) / 255, [4])[0], atol=1e-4)
    np.testing.assert_allclose(image, np.ravel(model.decode(z[None], [4])), atol=BOUND)
    browser.find_element("id", "label").send_keys("7")
    again, other, _ = state(browser)
    np.testing.assert_array_equal(again, z)
    np.testing.assert_allclose(other, np.ravel(model.decode(z[None], [7])), atol=BOUND)
    assert np.abs(other - image).max() > 10 * BOUND
    assert "model.generate([0, 1, 2], seed=1)" in path.read_text() and "labels=True" in path.read_text()


@pytest.mark.slow
def test_morphing_leads_from_one_code_to_the_other(browser, slider_page):
    path, model = slider_page
    open_page(browser, path)
    codes = np.asarray(model.code(np.round(255 * PIXELS[:2]) / 255))  # one of each class, in order
    for share in (0.0, 0.5, 1.0):
        browser.execute_script(
            "const m = document.getElementById('morph'); m.value = arguments[0]; m.dispatchEvent(new Event('input'))",
            share,
        )
        z = assert_decoded(browser, model)
        np.testing.assert_allclose(z, (1 - share) * codes[0] + share * codes[1], atol=1e-4)


@pytest.mark.slow
def test_what_is_chosen_drawn_or_opened_is_encoded_as_in_keras(browser, slider_page, tmp_path):
    path, model = slider_page
    open_page(browser, path)

    def encoded():
        z, _, pixels = state(browser)
        np.testing.assert_allclose(z, model.code(pixels.reshape(1, 28, 28, 1))[0], atol=1e-4)
        return pixels

    browser.find_elements("css selector", "#examples button")[3].click()
    np.testing.assert_allclose(encoded(), PIXELS[3].ravel(), atol=0.5 / 255 + 1e-6)
    drag(browser, "input", (0.5, 0.2), (0.5, 0.8))
    drawn = encoded().reshape(28, 28)
    assert drawn[8:20, 14].min() > 0.5 and not drawn[:, :8].any()  # the example gave way to a vertical line
    plotting.save_png(np.round(255 * PIXELS[5, ..., 0]).astype("uint8"), tmp_path / "digit.png")
    browser.find_element("id", "file").send_keys(str(tmp_path / "digit.png"))
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    np.testing.assert_allclose(encoded(), PIXELS[5].ravel(), atol=1.5 / 255)


@pytest.mark.slow
def test_a_change_is_drawn_in_one_frame_and_the_page_says_how_long_it_took(browser, slider_page):
    open_page(browser, slider_page[0])
    before = browser.execute_script("return explorer.frames.length")
    browser.execute_async_script(
        "const done = arguments[0]; let count = 0;"
        "(function next() { setInput(examples[count % 20].pixels);"  # encodes, decodes and draws
        "if (count++ < 60) requestAnimationFrame(next); else requestAnimationFrame(() => done()) })()"
    )
    assert browser.execute_script("return explorer.frames.length") - before in (60, 61, 62)
    assert re.fullmatch(r"\d+\.\d ms a frame", browser.find_element("id", "timing").text)


@pytest.mark.slow
def test_the_page_fits_a_phone_and_follows_the_theme(browser, plane_page):
    open_page(browser, plane_page[0])
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SCREENS["phone"])
    settle(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    brightness = {}
    for theme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": theme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [feature]})
        style = browser.execute_script("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
        brightness[theme] = [np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]]) for colour in style]
    assert brightness["light"][0] > 200 > 80 > brightness["light"][1]
    assert brightness["dark"][0] < 60 < 200 < brightness["dark"][1]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not browser.find_element("id", "explorer").is_displayed()
    assert browser.find_element("id", "figures").is_displayed()


@pytest.mark.slow
def test_everything_that_can_be_used_has_a_name_for_screen_readers(browser, plane_page):
    open_page(browser, plane_page[0])
    browser.execute_cdp_cmd("Accessibility.enable", {})
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {}
    for item in nodes:
        role = item.get("role", {}).get("value")
        if not item["ignored"] and role in ("slider", "button", "combobox", "application", "image", "img", "region"):
            roles.setdefault(role, []).append(item["name"]["value"])
    assert all(name for names in roles.values() for name in names), roles
    assert len(roles["slider"]) == 3 and len(roles["button"]) >= 24 and len(roles["combobox"]) == 2


@pytest.mark.slow
def test_without_javascript_the_figures_show(browser, plane_page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(plane_page[0].as_uri())
        assert browser.find_element("css selector", "#figures img").is_displayed()
        assert "needs JavaScript" in browser.find_element("id", "explorer").text
        assert not browser.find_element("id", "app").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.slow
def test_the_page_loads_nothing_and_complains_of_nothing(browser, plane_page, tmp_path):
    browser.get_log("browser")
    for path in (plane_page[0], make_report(tmp_path, "pca")[0]):
        open_page(browser, path)
        assert (
            browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)") == []
        )
    assert browser.get_log("browser") == []
