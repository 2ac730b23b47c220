"""The command line. Flags come from the config dataclasses; the heavy parts are imported when a command runs."""

import dataclasses
import functools
import json
from pathlib import Path

import click

from keras_vae import __version__, files, installed, registry
from keras_vae.config import EXPORT_FORMATS, Config, InputError, RunStopped, sections
from keras_vae.presets import DEFAULT, PRESETS, find_weights, get_preset, weights_of
from keras_vae.quiet import import_tensorflow


class Ints(click.ParamType):
    """A list of ints: 400 or 400,200."""

    name = "INTS"

    def convert(self, value, param, ctx):
        try:
            return tuple(int(item) for item in value.split(",") if item.strip())
        except ValueError:
            self.fail(f"{value!r} is not a list of integers such as 400,200.", param, ctx)


class ConfigCommand(click.Command):
    """A command whose --help lists the config's options by section."""

    def format_options(self, ctx, formatter):
        grouped = {"Options": []} | {f"{name.capitalize()} options": [] for name in sections(Config())}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                grouped[getattr(param, "section", "Options")].append(record)
        for title, records in grouped.items():
            with formatter.section(title):
                formatter.write_dl(records)


class ConfigOption(click.Option):
    """An option that stands for one field of the config."""

    def __init__(self, section, field):
        flag = "--" + field.name.replace("_", "-")
        boolean = field.type is bool
        names = [f"{flag}/--no-{flag[2:]}" if boolean else flag, field.name]
        kind = None if boolean else _click_type(field)
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        shown = "" if default is None or boolean else f"  [{default}]"
        super().__init__(names, type=kind, default=None, help=field.metadata["help"] + shown)
        self.section = f"{section.capitalize()} options"


def _click_type(field):
    if "axis" in field.metadata:
        return click.Choice(tuple(registry.members(field.metadata["axis"])))
    if field.metadata["choices"]:
        return click.Choice(field.metadata["choices"])
    base = next((kind for kind in getattr(field.type, "__args__", ()) if kind is not type(None)), field.type)
    is_tuple = getattr(field.type, "__origin__", None) is tuple
    return Ints() if is_tuple else {int: click.INT, float: click.FLOAT, str: click.STRING}[base]


class MemberOption(click.Option):
    """An option of the members of an axis: --beta, of elbo and beta_tc."""

    section = "Model options"

    def __init__(self, axis, flag, name):
        option = next(m.options[name] for m in registry.members(axis).values() if name in m.options)
        dashed = "--" + flag.replace("_", "-")
        is_flag = option.kind is bool
        kinds = {int: click.INT, float: click.FLOAT, tuple: Ints(), bool: None}
        kind = click.Choice(option.choices) if option.choices else kinds.get(option.kind, click.STRING)
        names = [f"{dashed}/--no-{dashed[2:]}" if is_flag else dashed, flag]
        super().__init__(names, type=kind, default=None, help=registry.help_of(axis, name))


def config_options(command):
    """Adds an option for every field of the config, and for the options of the members of each axis."""
    for name, section in sections(Config()).items():
        for field in dataclasses.fields(section):
            command.params.append(ConfigOption(name, field))
            if axis := field.metadata.get("axis"):
                flags = registry.flags(axis).items()
                command.params += [MemberOption(axis, flag, option) for flag, option in flags]
    return command


run_argument = click.argument("run", type=click.Path(path_type=Path))


@dataclasses.dataclass
class Results:
    """What a command found out: `values` are printed with --json, `shown` without: texts and `output.Table`s."""

    values: dict | list
    shown: list = dataclasses.field(default_factory=list)
    exit_code: int = 0


def prints_results(command):
    """Prints the `Results` of a command, as text or, with --json, as JSON.

    The command takes a `console` for what it says on its way, which --json turns to standard error.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, and all else to standard error.")
    @functools.wraps(command)
    def printing(*arguments, as_json, **options):
        from keras_vae import output

        console = output.Console(stderr=as_json)
        results = command(*arguments, console=console, **options)
        if as_json:
            output.Console().print(output.to_json(results.values))
        else:
            for part in results.shown:
                console.print(part)
        return results.exit_code

    return printing


class Commands(click.Group):
    """A group whose --help does not cut off what it says of its commands."""

    def format_commands(self, ctx, formatter):
        rows = [(name, self.get_command(ctx, name).get_short_help_str(limit=1000)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="In a pipe a table is lines of tab-separated values; --json has their names. TensorFlow's own messages are "
    "silenced; set TF_CPP_MIN_LOG_LEVEL=0 to see them.",
)
@click.version_option(__version__)
def cli():
    """Variational autoencoders in Keras: train, look at, evaluate and export."""


@config_options
@cli.command(cls=ConfigCommand)
@click.argument("preset", required=False)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Start from a run's config.json.")
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    help="Run directory; an unfinished one is continued.  [runs/PRESET-TIME]",
)
@prints_results
def train(preset, config_file, run_dir, console, **values):
    """Train a PRESET (see `keras-vae presets`; mlp by default), evaluate it, draw its figures and export it.

    Options change the preset; in brackets is what applies where the preset says nothing else. A run that was stopped
    or killed goes on where it was with `keras-vae train --run-dir DIR`.
    """
    from keras_vae.runs import Run, is_unfinished

    if config_file is not None:
        config = _read_config(config_file)
    elif preset is None and run_dir is not None and is_unfinished(run_dir):
        config = Run.open(run_dir).config
    else:
        config = get_preset(preset or DEFAULT).config
    config = config.replace(**{name: value for name, value in values.items() if value is not None})
    import_tensorflow()
    from keras_vae import training

    run = training.train(config, run_dir, console)
    return Results({"run": run.path, **(run.read_card() or {})})  # one of several workers writes it


@cli.command()
@run_argument
@click.option(
    "--samples",
    type=click.IntRange(0),
    default=5000,
    show_default=True,
    help="Samples of z for each image, for the likelihood; 0 for none.",
)
@click.option("--images", type=click.IntRange(1), help="On how many test images to sample.  [all]")
@click.option(
    "--estimator",
    type=click.Choice(("importance", "prior")),
    default="importance",
    show_default=True,
    help="Where the samples are drawn: from q(z|x), or from the prior, as tutorials begin.",
)
@prints_results
def evaluate(run, samples, images, estimator, console):
    """Score the model of RUN on its test split and write evaluation.json.

    Stopped by Ctrl-C or SIGTERM, the same command goes on where it was.
    """
    run, model, data = _open(run)
    from keras_vae import scoring
    from keras_vae.presets import command
    from keras_vae.stopping import StopSignals

    options = ["--samples", samples, "--estimator", estimator]
    options += [] if images is None else ["--images", images]
    with StopSignals(f"Continue with: {command('evaluate', run.path, *options)}") as signals:
        card = scoring.evaluate(run, model, data, console, samples, images, estimator, signals)
    return Results({"run": run.path, **card}, [scoring.results_table(card, run)])


@cli.command("fit-prior")
@run_argument
@click.option("--run-dir", type=click.Path(path_type=Path), required=True, help="Where to write the run with it.")
@click.option("--components", type=click.IntRange(1), default=50, show_default=True, help="Gaussians of the mixture.")
@click.option("--samples", type=click.IntRange(1), default=500, show_default=True, help="Samples of z, for the gain.")
@click.option("--images", type=click.IntRange(1), default=1000, show_default=True, help="Test images, for the gain.")
@prints_results
def fit_prior(run, run_dir, components, samples, images, console):
    """Fit a mixture of Gaussians to the latents of the VAE in RUN and print what it gains as its prior."""
    from keras_vae.runs import Run

    run = Run.open(run)
    import_tensorflow()
    from keras_vae import cards, fitting

    new, gain = fitting.fit_prior(run, run_dir, components, samples, images, console)
    return Results({"run": new.path, "gain": gain, "unit": cards.NATS, **cards.load(new)})


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", type=click.Choice(("text", "csv", "markdown")), default="text", show_default=True)
@click.option("--allow-mixed", is_flag=True, help="Take runs that were not scored alike, and show what differs.")
@click.option("--html", type=click.Path(path_type=Path), help="Also write a page: curves and pictures side by side.")
@prints_results
def compare(runs, format, allow_mixed, html, console):
    """Put the results of RUNS into one table, if they were scored alike."""
    from keras_vae import cards
    from keras_vae.runs import Run

    opened = [Run.open(run) for run in runs]
    found = {str(run.path): cards.load(run) for run in opened}
    differences = cards.paired(found, {str(run.path): run.read_estimates(found[str(run.path)]) for run in opened})
    table = cards.compare(found, allow_mixed, differences)
    if html is not None:
        import_tensorflow()
        from keras_vae import report

        report.write_comparison(opened, html, allow_mixed)
    values = {"runs": found, "differences": cards.mixed(found), "paired": differences}
    if format != "text":
        return Results(values, [cards.written(table, format)])
    from keras_vae import output

    names, *rows = zip(*table, strict=True)  # a run is a column: there are more results than runs
    return Results(values, [output.Table(names, rows, numbers=range(1, len(names)), header=True)])


@cli.command()
@run_argument
@click.option("--seconds", type=click.FloatRange(0), default=10.0, show_default=True, help="About how long to take.")
@prints_results
def audit(run, seconds, console):
    """Check the numbers of RUN against the formulas, and its latents for what commonly goes wrong.

    Exits with 0 if every number is what its name says, and with 1 if one is not.
    """
    run, model, data = _open(run)
    from keras_vae import cards, evaluation, output, scoring

    pixels, labels = scoring.load_test_images(run.config, data)
    card = run.read_card()
    with scoring.audit_progress(console) as progress:
        findings = evaluation.audit(model, pixels, labels=labels, card=card, seconds=seconds, progress=progress)
    rows = [
        (
            finding.status,
            finding.name,
            ", ".join(f"{name} {cards.number(value)}" for name, value in finding.numbers.items()),
            finding.advice,
        )
        for finding in findings
    ]
    found = {status: sum(finding.status == status for finding in findings) for status in ("error", "warning")}
    summary = f"{output.counted(len(findings), 'check')}, " + ", ".join(
        output.counted(count, status) for status, count in found.items()
    )
    return Results(
        {"run": run.path, "findings": [dataclasses.asdict(finding) for finding in findings], "summary": found},
        [output.Table(("status", "check", "", ""), rows, heading=2), f"{summary}."],
        exit_code=1 if found["error"] else 0,
    )


@cli.command()
@run_argument
@click.option("--to", type=click.Path(path_type=Path), help="Folder to export to.  [RUN/export]")
@click.option(
    "--format",
    type=click.Choice(EXPORT_FORMATS),
    default=EXPORT_FORMATS[0],
    show_default=True,
    help="What to write: SavedModels for TensorFlow Serving, ONNX or LiteRT.",
)
@click.option(
    "--device",
    type=click.Choice(("cpu", "gpu")),
    default="cpu",
    show_default=True,
    help="Where the export will run; it computes the same on both.",
)
@prints_results
def export(run, to, format, device, console):
    """Export the encoder and the decoder of RUN, as a new version beside those that are there."""
    from keras_vae.runs import Run

    run = Run.open(run)
    import_tensorflow()
    from keras_vae import output, serving

    to = to or run.path / "export"
    written = serving.export_saved_models(run.load_model(), to, format, run.config.data.binarization, device)
    return Results(
        {"version": written.version, "paths": written.paths}, [output.Table(("model", "path"), written.paths.items())]
    )


@cli.command("verify-export")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--allow", multiple=True, help="Operation that the graphs may hold, of an export of your own; repeatable."
)
@prints_results
def verify_export(directory, allow, console):
    """Check an export from the outside: operations, signatures, golden vectors, hostile inputs, warmup, memory, size.

    Nothing of a graph runs that holds an operation which no network needs, such as one that writes a file.
    Exits with 0 if all is well, and with 1 after a list of what is not.
    """
    import_tensorflow()
    from keras_vae import output, serving

    steps = []
    with console.status("checking") as status:  # shown on a terminal alone
        failures = serving.verify_export(directory, lambda step: steps.append(step) or status.update(step), allow)
    summary = f"{directory}: {output.counted(len(steps), 'check')}, {len(failures)} failed."
    return Results(
        {"export": directory, "checks": steps, "failures": failures},
        [*(f"FAILED: {failure}" for failure in failures), summary],
        exit_code=1 if failures else 0,
    )


@cli.command()
@run_argument
@click.option("--to", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--export/--no-export", default=True, help="Also export SavedModels into it.  [export]")
@prints_results
def publish(run, to, export, console):
    """Make a folder of RUN to pass on: weights, config, card and export, laid out for the Hugging Face hub."""
    from keras_vae.runs import Run

    run = Run.open(run)
    import_tensorflow()
    from keras_vae import publishing

    path = publishing.publish(run, to, export)
    return Results({"path": path}, [path])


@cli.command()
@run_argument
@click.option("--count", type=click.IntRange(1), default=64, show_default=True, help="How many images.")
@click.option("--label", type=click.IntRange(0), help="Of a model with labels: the class to draw.  [all in turn]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draws from the prior.")
@click.option("--to", type=click.Path(path_type=Path), help="A .png grid or an .npy array.  [RUN/generated.png]")
@prints_results
def generate(run, count, label, seed, to, console):
    """Draw images from the prior of RUN, or of a trained model that comes with the package: mlp."""
    from keras_vae.runs import Run

    if not run.exists() and weights_of(str(run)):
        run, to = Run.open(find_weights(str(run), "mnist")), to or Path("generated.png")
    else:
        run = Run.open(run)
    to = _check_image_target(to or run.path / "generated.png")
    import_tensorflow()
    model = run.load_model()
    if not hasattr(model, "generate"):
        raise InputError(f"{run.path} holds an {type(model).__name__}, which has no prior to draw from. Use a VAE.")
    if label is not None and not model.takes_labels:
        raise InputError(f"{run.path} holds a {type(model).__name__}, which knows no classes. Leave out --label.")
    classes = None
    if model.takes_labels:
        classes = [number % model.condition.num_classes if label is None else label for number in range(count)]
    images = model.generate(count, seed, classes).numpy()
    if to.suffix == ".npy":
        return _write_array(images, to)
    from keras_vae import figures

    return _write_picture(figures.picture(images, run.value_range), to, count)


@cli.command()
@run_argument
@click.option("--count", type=click.IntRange(1), default=32, show_default=True, help="How many test images.")
@click.option("--to", type=click.Path(path_type=Path), help="A .png grid or an .npy array.  [RUN/reconstructed.png]")
@prints_results
def reconstruct(run, count, to, console):
    """Reconstruct test images of RUN: rows of originals over rows of reconstructions, or an array of the latter."""
    to = to and _check_image_target(to)
    run, model, data = _open(run)

    from keras_vae import figures, training

    to = to or run.path / "reconstructed.png"
    originals, labels = training.load_test_images(run.config, data)
    originals = originals[:count]
    images = model.reconstruct(originals, *([labels[:count]] if model.takes_labels else [])).numpy()
    if to.suffix == ".npy":
        return _write_array(images, to)
    return _write_picture(figures.picture(originals, run.value_range, over=images), to, len(images))


@cli.command()
@run_argument
@click.option("--to", type=click.Path(path_type=Path), help="An .npz file.  [RUN/encoded.npz]")
@prints_results
def encode(run, to, console):
    """Encode the test images of RUN: writes an .npz with z_mean and z_log_var (z of an autoencoder) and labels."""
    if to is not None and to.suffix != ".npz":
        raise InputError(f"Invalid value for --to: expected a file that ends in .npz. Received: {to}")
    run, model, data = _open(run)
    import numpy as np

    from keras_vae import evaluation, training

    images, labels = training.load_test_images(run.config, data)
    codes = evaluation.batched(model.encode, images, *([labels] if model.takes_labels else []))
    heads = model.posterior.head_shapes((model.latent_dim,)) if hasattr(model, "prior") else ["z"]
    arrays = dict(zip(heads, codes if isinstance(codes, tuple) else [codes], strict=True))
    if labels is not None:
        arrays["labels"] = labels
    to = to or run.path / "encoded.npz"
    with files.writing(to) as file:
        np.savez(file, **arrays)
    shapes = {name: array.shape for name, array in arrays.items()}
    shown = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    return Results({"path": to, "arrays": shapes}, [f"{to}: {shown}"])


@cli.command()
@run_argument
@click.option("--audit/--no-audit", default=True, help="Show an audit, of at most about 10 seconds.  [audit]")
@prints_results
def report(run, audit, console):
    """Write report.html of RUN: numbers, figures and a page in which its latent space can be explored."""
    run, model, data = _open(run)
    from keras_vae import training

    if not (run.path / "figures").is_dir():
        training.draw(run, model, data)
    path = training.write_report(run, model, data, console, audit)
    return Results({"path": path}, [path])


@cli.command()
@prints_results
def presets(console):
    """List the presets."""
    from keras_vae import output

    listed = [
        {"preset": name, "system": preset.system, "expect": preset.expect, "weights": weights_of(name)}
        for name, preset in PRESETS.items()
    ]
    rows = [(row["preset"], row["system"], row["expect"], ", ".join(row["weights"])) for row in listed]
    return Results(listed, [output.Table(("preset", "system", "what to see on MNIST", "weights"), rows)])


def main(arguments=None):
    """Runs the command line and returns its exit code: 0, 2 for bad input, 1 for a run that failed, 130 or 143 for
    one that was stopped by Ctrl-C or SIGTERM."""
    try:
        return cli.main(arguments, prog_name="keras-vae", standalone_mode=False) or 0
    except click.ClickException as error:
        return _fail(error.format_message(), code=2)
    except (InputError, installed.Unsupported) as error:
        return _fail(error, code=2)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}", code=2 if where else 1)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", code=130)
    except RunStopped as error:
        return _fail(error, code=error.exit_code)


def _fail(message, code):
    from keras_vae import output

    click.echo(f"keras-vae: error: {output.printable(' '.join(str(message).split()))}", err=True)
    return code


def _open(path):
    """Opens a run with its model and its data."""
    from keras_vae.runs import Run

    run = Run.open(path)
    import_tensorflow()
    return run, run.load_model(), run.open_data()


def _read_config(path):
    from keras_vae import files, records

    try:
        content = json.loads(files.read_bytes(path, records.LIMIT))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"Cannot read the config {path}: {error}") from None
    return Config.from_dict(content.get("config") if isinstance(content, dict) else content)


def _check_image_target(path):
    if path.suffix not in (".png", ".npy"):
        raise InputError(f"Invalid value for --to: expected a file that ends in .png or .npy. Received: {path}")
    return path


def _write_array(examples, path):
    import numpy as np

    with files.writing(path) as file:
        np.save(file, examples)
    return _written(path, len(examples))


def _write_picture(picture, path, count):
    from keras_vae import plotting

    plotting.save_png(picture, path)
    return _written(path, count)


def _written(path, count):
    from keras_vae import output

    return Results({"path": path, "examples": count}, [f"{path}: {output.counted(count, 'example')}"])
