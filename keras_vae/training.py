"""The main job: train, evaluate, draw, export, all into one run directory."""

import math
import shlex
import shutil
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_vae import (
    cards,
    checkpoints,
    data,
    distribution,
    files,
    installed,
    model_state,
    plotting,
    report,
    serving,
    untrained,
    workers,
)
from keras_vae.callbacks import ImageGrids, LatentBoard, LatentStatistics, ProgressReport, duration
from keras_vae.checkpoints import Checkpoint, InterruptedRun
from keras_vae.config import InputError, RunStopped, field_owners, sections
from keras_vae.disk import stopped_by_the_disk
from keras_vae.event_shapes import kind_of
from keras_vae.figures import draw_figures
from keras_vae.models import NonFiniteLossError
from keras_vae.output import Console
from keras_vae.presets import train_command
from keras_vae.runs import Run, check_new, continue_command, data_facts, default_path, is_unfinished, open_data
from keras_vae.scoring import audit_progress, evaluate, load_test_images, results_table
from keras_vae.stopping import OUTSIDE, Lock, StopSignals
from keras_vae.support import check_labels, check_values

EVALUATION_BATCH = 500
# What may be another when a run is continued: where it runs, and where its data are.
MACHINE_FIELDS = {"strategy", "audit", "checkpoint_every", "checkpoint_minutes", "mnist_dir", "data_dir"}
LOCAL_FIELDS = {"strategy", "mnist_dir", "data_dir", "dataset"}  # and on each of several machines


def train(config, run_dir=None, console=None):
    """Trains the model of a config and leaves a complete run directory. Continues a run that is not finished.

    Args:
        config: A `keras_vae.config.Config`.
        run_dir: Where to; None for `runs/<preset>-<time>`.
        console: A `rich.console.Console` for the report, or None for the standard output.

    Returns:
        The `Run`.

    Raises:
        InputError: for bad input, before anything is written; also for a finished run, and for an unfinished one
            with another config or other data.
        NonFiniteLossError: if the loss becomes NaN or infinite; model.keras then holds the weights before that.
        RunStopped: if a signal stopped the run, or its state cannot be saved. The same call continues it.
    """
    installed.need("matplotlib", "sklearn", "tensorboard")
    console = console or Console()
    if run_dir is None and config.training.strategy == "multiworker":
        raise InputError("Several machines need one --run-dir, in a folder that all of them share.")
    run_dir = default_path(config) if run_dir is None else run_dir
    continues = is_unfinished(run_dir)
    if not continues:
        check_new(run_dir)
    elif other := Run.open(run_dir).facts.get("command"):
        raise InputError(f"{run_dir} was begun by another command, and is not trained. Continue with: {other}")
    policy = keras.config.dtype_policy()
    with StopSignals(lambda: f"Continue with: {continue_command(run_dir, config)}") as signals:
        try:
            if config.training.mixed_precision != "none":
                keras.config.set_dtype_policy(f"mixed_{config.training.mixed_precision}")
            return _Job(config, run_dir, console, signals, continues).run_all()
        finally:
            keras.config.set_dtype_policy(policy)


class _Job:
    """One call of `train`: what its stages share."""

    def __init__(self, config, run_dir, console, signals, continues):
        self.started = time.monotonic()
        self.console = console
        self.signals = signals
        self.continues = continues
        self.peers = self._join(config)
        self.strategy = distribution.choose(config.training.strategy)
        signals.install()  # TensorFlow takes SIGTERM for several workers
        self.chief = distribution.is_chief(self.strategy)
        if config.training.checkpoint_minutes and distribution.is_multiworker(self.strategy):
            raise InputError("Several machines cannot agree on minutes: use --checkpoint-every with a number of steps.")
        self.images = open_data(config)
        signals.check()
        self.facts = data_facts(self.images)
        if self.peers:
            told = ("event_shape", "train_images", "test_images", "train_sha256", "test_sha256")
            self.peers.agree("data", {f"{name} of the data": self.facts[name] for name in told})
        check_labels(config, self.images)
        check_values(config, self.images)
        self.config = config.replace(dataset=self.images.name) if config.data.dataset == "auto" else config
        self.steps = math.ceil(len(self.images.train) / config.training.batch_size)
        keras.utils.set_random_seed(config.training.seed)
        with self.strategy.scope():
            self.model = self._compiled()
        self.run = self._open_run(run_dir)

    def _join(self, config):
        """The `workers.Peers` of this process, all of whom do the same; None if it is alone."""
        cluster = distribution.cluster(config.training.strategy)
        if cluster is None or len(cluster.names) == 1:
            return None
        options = {name: value for section in sections(config).values() for name, value in vars(section).items()}
        facts = {name: value for name, value in options.items() if name not in LOCAL_FIELDS}
        versions = {f"the version of {name}": version for name, version in installed.versions().items()}
        peers = workers.join(cluster, {**facts, **versions})
        self.signals.place = "while several workers train: the steps since the last checkpoint are done again"
        peers.watch(self.signals)
        return peers

    def run_all(self):
        with Lock(self.run.checkpoints) if self.chief else nullcontext():
            if self.chief:
                files.remove_leftovers(self.run.path, everything=True)
            with stopped_by_the_disk(self.run, lambda: continue_command(self.run.path, self.config)):
                self._announce()
                with self.peers or nullcontext():
                    self._fit()
                self.signals.place = OUTSIDE
                if not self.chief:
                    return self.run
                self._finish()
                self.run.finish()
        _warn_of_fallback(self.console, self.images)
        took = duration(time.monotonic() - self.started)
        self.console.print(f"Done in {took}. Run directory: {self.run.path}")
        return self.run

    def _compiled(self):
        model = untrained.build(self.config, self.images)
        optimizer = untrained.build_optimizer(self.config.training, self.steps)
        if self.config.training.mixed_precision == "float16":  # as Keras would, but for the float32 form of it too
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        training = self.config.training
        model.compile(optimizer, jit_compile={"on": True, "off": False}.get(training.jit_compile, "auto"))
        model.optimizer.build(model.trainable_variables)
        model.plan_execution(self.steps * training.epochs)
        return model

    def _open_run(self, run_dir):
        facts = {"data": self.facts}
        if not self.continues:
            if not self.chief:
                return Run(Path(run_dir), self.config, facts)
            # model.keras holds the weights and two optimizer slots for each, and so do three checkpoints while the
            # third is written; figures and logs take a few MB more
            return Run.create(run_dir, self.config, facts, required_bytes=2e7 + 4 * 4 * 4 * self.model.count_params())
        run = Run.open(run_dir)
        _check_same(run, self.config, facts)
        now = installed.versions()
        before = {name: found for name, found in run.facts.get("versions", {}).items() if found != now.get(name)}
        if before:
            changed = ", ".join(f"{name} {found} (now {now.get(name)})" for name, found in before.items())
            self.console.print(f"WARNING: it was started with {changed}: its results may differ in their last bits.")
        return Run(run.path, self.config, run.facts)

    def _announce(self):
        training, precision = self.config.training, keras.config.dtype_policy().name
        _announce(self.console, self.run, self.images, self.model)
        self.devices = distribution.describe(self.strategy, training.batch_size, precision)
        self.console.print(f"Runs on {self.devices}")

    def _fit(self):
        config, run, training = self.config, self.run, self.config.training
        pipeline = {
            "binarization": config.data.binarization,
            "seed": training.seed,
            "labels": self.model.takes_labels,
        }
        with tempfile.TemporaryDirectory() as elsewhere:  # for what the other workers would write
            path = run.path if self.chief else Path(elsewhere)
            progress = ProgressReport(len(self.images.train), self.console)
            grids = ImageGrids(
                _picture(self.model, self.images, config),
                path / "samples",
                path / "tensorboard" / "images",
                every=training.sample_every,
                value_range=self.facts["value_range"],
            )
            callbacks = [keras.callbacks.TensorBoard(path / "tensorboard", write_graph=False), grids]
            if self.chief:
                shown, labels = _first_test_images(self.images)
                statistics = [LatentStatistics(shown, labels)] if hasattr(self.model, "prior") else []
                options = _hyper_parameters(config)
                board = LatentBoard(
                    path / "tensorboard" / "latent",
                    shown,
                    labels,
                    len(self.images.train),
                    options,
                    self.facts["value_range"],
                )
                callbacks = [progress, *statistics, *callbacks, board]
            checkpoint = Checkpoint(
                run.checkpoints,
                self.steps,
                every=training.checkpoint_every,
                minutes=training.checkpoint_minutes,
                history=run.path / "history.csv",
                callbacks=[grids],
                stop=self.signals.received,
                chief=self.chief,
            )
            done = self._restore(checkpoint)
            if self.peers:  # one that does not see the run directory would begin at 0
                self.peers.agree("step", {"the step to go on from": done})
            if self.continues:
                self.console.print(f"Continues {run.path} after step {done:,} of {training.epochs * self.steps:,}.")
            try:
                with self._deferred_signals():
                    checkpoints.fit(
                        self.model,
                        lambda step: _sharded(
                            data.batches(
                                self.images.train, training.batch_size, shuffle=True, first_step=step, **pipeline
                            )
                        ),
                        checkpoint,
                        epochs=training.epochs,
                        validation_data=_sharded(data.batches(self.images.test, EVALUATION_BATCH, **pipeline)),
                        callbacks=callbacks,
                    )
            except InterruptedRun as interrupted:
                raise self.signals.stopped(f"after step {interrupted.step:,}; its state is saved") from None
            except NonFiniteLossError as error:
                if self.chief:
                    save_model(self.model, run)
                raise NonFiniteLossError(f"{error} They are in {run.path / 'model.keras'}.") from None
            except (tf.errors.UnavailableError, tf.errors.AbortedError):
                if not distribution.is_multiworker(self.strategy):
                    raise
                raise RunStopped(
                    "Another worker is gone. Start all workers again: they continue from the last checkpoint."
                ) from None
            finally:
                progress.stop()

    def _restore(self, checkpoint):
        try:
            return checkpoint.restore(self.model)
        except checkpoints.DamagedCheckpoint as error:
            again = (
                f"{shlex.join(['rm', '-r', '--', str(self.run.path)])} && {train_command(self.config, self.run.path)}"
            )
            raise InputError(f"{error} To start over at step 0, on purpose: {again}") from None

    def _deferred_signals(self):
        """One of several workers cannot save alone: a signal ends it at once, and all start again together."""
        return nullcontext() if distribution.is_multiworker(self.strategy) else self.signals.deferred()

    def _finish(self):
        """What follows on the training, by one process on one device: it can be done again from the last checkpoint."""
        took = duration(time.monotonic() - self.started)
        self.run = self.run.add_facts(
            devices=self.devices, time=f"{took} of training" + " since it was continued" * self.continues
        )
        model = self.model
        if self.strategy.num_replicas_in_sync > 1 or self.config.training.mixed_precision != "none":
            keras.config.set_dtype_policy("float32")  # the weights are, and so is all that is measured and served
            model = self._compiled()
            model_state.set_state(model, checkpoints.load_newest(self.run.checkpoints)[1])
        save_model(model, self.run)
        self.console.print(f"Trained in {took}.")
        complete(self.run, model, self.images, self.console)


def complete(run, model, images, console):
    """Evaluates the trained model of a run, draws its figures, exports it and writes its report."""
    training = run.config.training
    card = evaluate(run, model, images, console, training.nll_samples, training.nll_images)
    console.print(results_table(card, run))
    draw(run, model, images)
    frames = sorted((run.path / "samples").glob("step-*.png"))
    if frames:
        plotting.save_animation(frames, run.path / "figures" / "animation.gif")
    console.print(f"Figures: {run.path / 'figures'}")
    shutil.rmtree(run.path / "export", ignore_errors=True)  # of an attempt that was cut off
    serving.export_saved_models(model, run.path / "export", binarization=run.config.data.binarization)
    console.print(f"SavedModels of the encoder and the decoder: {run.path / 'export'}")
    console.print(f"Report: {write_report(run, model, images, console, training.audit)}")


def _check_same(run, config, facts):
    """Refuses to continue a run with another config or other data."""
    before, now = ({name: vars(section) for name, section in sections(c).items()} for c in (run.config, config))
    for name, section in field_owners().items():
        if name not in MACHINE_FIELDS and before[section][name] != now[section][name]:
            raise InputError(
                f"{run.path} was started with {name} = {before[section][name]}, and cannot be continued with "
                f"{now[section][name]}. Leave the option out, or choose another --run-dir."
            )
    run.check_data(facts["data"])


def _sharded(dataset):
    """A dataset of global batches of which each worker takes its part."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def draw(run, model, images):
    """Draws the figures of a run into its folder figures/."""
    pixels, labels = load_test_images(run.config, images)
    return draw_figures(
        model,
        pixels,
        labels,
        run.path / "figures",
        class_names=images.class_names,
        history=run.read_history(),
        footnote=_footnote(run, images),
        value_range=run.value_range,
    )


def write_report(run, model, images, console, audit=True):
    """Writes report.html of a run; see `keras_vae.report.write_report`. Returns its path."""
    pixels, labels = load_test_images(run.config, images)
    with audit_progress(console) as progress:
        return report.write_report(run, model, pixels, labels, audit, progress, images.class_names)


def save_model(model, run):
    """Writes model.keras, whole or not at all."""
    with files.replacing(run.path / "model.keras") as temporary:
        model.save(temporary)


def _picture(model, images, config):
    """What is drawn during training: samples of a VAE, reconstructions of an autoencoder, always of the same seed."""
    if model.takes_labels:
        return lambda: model.generate(64, config.training.seed, np.arange(64) % model.condition.num_classes)
    if hasattr(model, "generate"):
        return lambda: model.generate(64, seed=config.training.seed)
    shown = data.to_pixels(images.test.images[:64])
    return lambda: model.reconstruct(shown)


def _first_test_images(images, count=1000):
    """Test images in [0, 1] to look at during training, and their labels or None."""
    shown = images.test.images[np.arange(min(count, len(images.test)))]
    return data.to_pixels(shown), None if images.test.labels is None else images.test.labels[: len(shown)]


def _hyper_parameters(config):
    """The fields of a config as TensorBoard takes them."""
    options = {name: value for section in sections(config).values() for name, value in vars(section).items()}
    return {name: value if isinstance(value, (bool, int, float)) else str(value) for name, value in options.items()}


def _footnote(run, images):
    pixels = cards.pixels(run.config.data.binarization, images.event_shape)
    fallback = " (bundled, in place of mnist)" if images.fallback else ""
    return f"preset {run.config.preset}, {images.name}{fallback}, test split, {pixels}"


def _announce(console, run, images, model):
    _warn_of_fallback(console, images)
    console.print(
        f"{run.config.preset}: {type(model).__name__} with {model.count_params():,} parameters, "
        f"{model.latent_dim} latent dimensions"
    )
    console.print(
        f"{images.name}: {len(images.train):,} training and {len(images.test):,} test {kind_of(images.event_shape)}s "
        f"of {'x'.join(map(str, images.event_shape))}, from {images.source}"
    )


def _warn_of_fallback(console, images):
    if images.fallback:
        console.print(
            f"NOT MNIST: this run uses the {len(images.train) + len(images.test):,} bundled digits, because mnist "
            f"cannot be had. {images.fallback}",
            style="bold red",
        )
