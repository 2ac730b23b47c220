"""Run directories: that their data are the ones they were trained on, and that no damaged file of one is believed."""

import hashlib
import json
import os

import numpy as np
import pytest

from keras_vae import cli, data, records, runs
from keras_vae.config import Config, InputError
from keras_vae.data import LazyImages, Split, fingerprint
from keras_vae.runs import Run

RANDOM = np.random.default_rng(0)


# -- the data of a run ---------------------------------------------------------------------------------------------


def made_of(images, tmp_path, **options):
    """A run of the images in a file, as if it was trained."""
    np.savez(tmp_path / "images.npz", images=images, **options)
    config = Config().replace(dataset=str(tmp_path / "images.npz"))
    return Run.create(tmp_path / "run", config, {"data": runs.data_facts(runs.open_data(config))})


@pytest.mark.parametrize("change", ["one more", "one pixel", "two swapped", "a label"])
def test_a_run_is_not_scored_on_images_that_it_may_have_been_trained_on(change, tmp_path, capsys):
    images, labels = RANDOM.random((40, 6, 6), "float32"), np.arange(40)
    run = made_of(images, tmp_path, labels=labels)
    assert len(run.open_data().test) == 4
    before = {str(image) for image in run.open_data().train.images}
    if change == "one more":
        images, labels = np.concatenate([images, images[:1] / 2]), np.arange(41)
    elif change == "one pixel":
        images[7, 2, 3] = 1 - images[7, 2, 3]
    elif change == "two swapped":
        images[[3, 4]] = images[[4, 3]]
    else:
        labels = labels % 39
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    if change == "one more":  # the hazard: another split
        assert before & {str(image) for image in runs.open_data(run.config).test.images}
    with pytest.raises(InputError, match=r"trained on other data .*images.npz: its (train|test)_"):
        run.open_data()
    (run.path / "checkpoints").rmdir()
    assert cli.main(["evaluate", str(run.path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_of_an_earlier_version_without_hashes_is_held_to_its_counts(tmp_path):
    run = made_of(RANDOM.random((40, 6, 6), "float32"), tmp_path)
    facts = {"data": {name: value for name, value in run.facts["data"].items() if not name.endswith("sha256")}}
    old = Run(run.path, run.config, facts)
    old.open_data()
    np.savez(tmp_path / "images.npz", images=RANDOM.random((60, 6, 6), "float32"))
    with pytest.raises(InputError, match="train_images was 36 and is 54"):
        old.open_data()


def test_of_large_data_the_first_and_the_last_images_and_all_labels_are_hashed():
    images, read = RANDOM.integers(0, 256, (1000, 8, 8, 1), "uint8"), []

    def lazy(array):
        return LazyImages(lambda index: read.extend(index) or array[index], np.arange(len(array)), (8, 8, 1), np.uint8)

    labels = np.arange(1000)
    found = fingerprint(Split(lazy(images), labels), limit=100 * 64)
    assert len(read) == 100 and {0, 999} <= set(read)
    assert found == fingerprint(Split(images, labels), limit=100 * 64) != fingerprint(Split(images, labels))
    for changed in (0, 999):
        other = images.copy()
        other[changed] ^= 1
        assert fingerprint(Split(other, labels), limit=100 * 64) != found
    assert fingerprint(Split(images, labels[::-1].copy()), limit=100 * 64) != found
    assert fingerprint(Split(images[:-1], labels[:-1]), limit=100 * 64) != found


def test_the_hash_of_data_is_that_of_their_shape_and_bytes():
    digits = data.open_dataset("digits")
    assert fingerprint(digits.test) == fingerprint(data.open_dataset("digits").test)
    train = Split(np.arange(16, dtype="uint8").reshape(1, 4, 4, 1))
    assert fingerprint(train) == hashlib.sha256(b"((1, 4, 4, 1), 'uint8')" + bytes(range(16))).hexdigest()


# -- reading ---------------------------------------------------------------------------------------------------------

CARD = {
    "protocol": {"dataset": "digits", "estimator": "importance", "binarization_seed": None},
    "model": {"loss": "the negative ELBO", "beta": 1.0},
    "results": {"loss": 104.2, "kl_per_dimension": [1.0, 2.0], "nll_by_samples": {"1": 3.0}, "nll": None},
    "units": {"loss": "nats per example"},
    "versions": {"keras": "3.15.1"},
}
HISTORY = b"epoch,loss,val_loss\r\n0,3.5,4.0\r\n1,3.0,NA\r\n"
FACTS = {
    "data": {"name": "digits", "source": "here", "fallback": None, "event_shape": [8, 8, 1], "train_images": 9,
             "test_images": 1},
    "versions": {"keras": "3"}, "created": "today",
}  # fmt: skip


def test_what_this_package_writes_is_read_as_it_is(tmp_path):
    run = Run.create(tmp_path / "run", Config(), FACTS)
    assert (run.read_card(), run.read_history(), run.read_picture("samples.png")) == (None, None, None)
    (run.path / "evaluation.json").write_text(json.dumps(CARD))
    (run.path / "history.csv").write_bytes(HISTORY)
    assert Run.open(run.path).facts == run.facts
    assert run.read_card() == CARD
    history = run.read_history()
    assert history["epoch"] == [1, 2] and history["loss"] == [3.5, 3.0] and np.isnan(history["val_loss"][1])


def damages(content, count=150):
    """The bytes of a file, damaged: cut, with other bytes, of another form."""
    for _ in range(count):
        damaged = bytearray(content)
        for position in RANDOM.integers(0, len(content), RANDOM.integers(1, 4)):
            damaged[position] = RANDOM.integers(0, 256)
        yield bytes(damaged)
        yield content[: RANDOM.integers(0, len(content))]
    yield from (
        b"",
        b"\0" * 99,
        b"null",
        b"[]",
        b"3",
        b'"text"',
        b"{}",
        b"[" * 10**5,
        b'{"config": {}}',
        b"\xff\xfe",
        b"1" * 9999,
    )


def replaced(value):
    """Every value of a JSON document, replaced by values of other forms: the documents."""
    if isinstance(value, dict):
        for key in value:
            for part in replaced(value[key]):
                yield {**value, key: part}
            yield {name: part for name, part in value.items() if name != key}
    yield from (None, True, 10**400, -1, "a\x1b]52;c;YQ==\x07", "", [], {}, [None], {"": {}}, float("nan"))


def texts(value):
    """Every string in the first three levels of a value."""
    for key, part in value.items():
        yield key
        yield from texts(part) if isinstance(part, dict) else [part]


@pytest.mark.parametrize("parse", ["config", "card", "history"])
def test_a_damaged_file_is_refused_in_one_line_or_has_the_right_form(parse):
    whole = {
        "config": json.dumps({"config": Config().to_dict(), **FACTS}).encode(),
        "card": json.dumps(CARD).encode(),
        "history": HISTORY,
    }[parse]
    contents = [*damages(whole)]
    if parse != "history":
        contents += [json.dumps(each).encode() for each in replaced(json.loads(whole))]
    refused = 0
    for content in contents:
        try:
            found = getattr(records, f"parse_{parse}")(content)
        except (ValueError, records.csv.Error) as error:
            refused += 1
            assert "\x1b" not in str(error)
            continue
        if parse == "card":
            assert all(isinstance(found[part], dict) for part in CARD)
        elif parse == "history":
            assert len({len(column) for column in found.values()}) == 1
        facts = {"created": found[1].get("created"), **found[1].get("data", {})} if parse == "config" else found
        assert all(text.isprintable() for text in texts(facts) if isinstance(text, str))
    assert refused > len(contents) / 3


@pytest.mark.parametrize("kind", ["pipe", "folder", "huge", "link to a device"])
def test_a_file_of_a_run_that_is_none_is_refused_at_once(kind, tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", Config(), {})
    monkeypatch.setattr(records, "LIMIT", 10**4)
    for name, read in (("evaluation.json", run.read_card), ("history.csv", run.read_history)):
        path = run.path / name
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "huge":
            path.write_bytes(b"1" * 10**5)
        else:
            path.symlink_to("/dev/zero")
        with pytest.raises(InputError, match=name):
            read()


def test_a_picture_of_a_run_is_a_picture_within_it(tmp_path):
    run = Run.create(tmp_path / "run", Config(), {})
    (run.path / "figures").mkdir()
    secret = b"\x89PNG\r\n\x1a\n secret"
    (tmp_path / "secret.png").write_bytes(secret)
    (run.path / "figures" / "linked.png").symlink_to(tmp_path / "secret.png")
    (run.path / "figures" / "text.png").write_bytes(b"secret")
    (run.path / "figures" / "good.png").write_bytes(secret)
    for name in ("linked.png", "text.png", "../../secret.png"):
        with pytest.raises(InputError):
            run.read_picture(name)
    assert run.read_picture("good.png") == secret


# -- what a killed process left ------------------------------------------------------------------------------------


def test_a_run_killed_while_its_config_was_written_is_begun_again(tmp_path):
    path = tmp_path / "run"
    (path / "checkpoints").mkdir(parents=True)
    (path / f"{runs.files.TEMPORARY}1234-config.json").write_text("{")
    Run.create(path, Config(), {})
    assert sorted(file.name for file in path.iterdir()) == ["checkpoints", "config.json"]
    with pytest.raises(InputError, match="exists already"):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "something").touch()
        Run.create(tmp_path / "other", Config(), {})


def test_a_run_killed_while_its_checkpoints_were_removed_is_finished_and_tidied(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", Config(), {})
    (run.checkpoints / "step-0000000001.checkpoint").touch()
    with monkeypatch.context() as patch:
        patch.setattr(runs.shutil, "rmtree", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run.finish()
    assert not runs.is_unfinished(run.path)
    abandoned, young = (run.path / f"{runs.files.TEMPORARY}{name}-report.html" for name in ("old", "new"))
    abandoned.touch()
    young.touch()
    os.utime(abandoned, (1, 1))
    Run.open(run.path)
    young.unlink()  # somebody may be writing it
    assert [file.name for file in run.path.iterdir()] == ["config.json"]
