"""Commands about training and results: train, evaluate, audit, compare, report, fit-prior, presets."""

import dataclasses
from pathlib import Path

import click

from keras_vae.cli.flags import ConfigCommand, config_options
from keras_vae.cli.results import Results, open_run, prints_results, read_config, run_argument
from keras_vae.presets import DEFAULT, PRESETS, get_preset, weights_of
from keras_vae.quiet import import_tensorflow


@config_options
@click.command(cls=ConfigCommand)
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
        config = read_config(config_file)
    elif preset is None and run_dir is not None and is_unfinished(run_dir):
        config = Run.open(run_dir).config
    else:
        config = get_preset(preset or DEFAULT).config
    config = config.replace(**{name: value for name, value in values.items() if value is not None})
    import_tensorflow()
    from keras_vae import training

    run = training.train(config, run_dir, console)
    return Results({"run": run.path, **(run.read_card() or {})})  # one of several workers writes it


@click.command()
@run_argument
@click.option(
    "--samples",
    type=click.IntRange(0),
    default=5000,
    show_default=True,
    help="Samples of z for each example, for the likelihood; 0 for none.",
)
@click.option("--images", type=click.IntRange(1), help="On how many test examples to sample.  [all]")
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
    run, model, data = open_run(run)
    from keras_vae import scoring
    from keras_vae.presets import command
    from keras_vae.stopping import StopSignals

    options = ["--samples", samples, "--estimator", estimator]
    options += [] if images is None else ["--images", images]
    with StopSignals(f"Continue with: {command('evaluate', run.path, *options)}") as signals:
        card = scoring.evaluate(run, model, data, console, samples, images, estimator, signals)
    return Results({"run": run.path, **card}, [scoring.results_table(card, run)])


@click.command("fit-prior")
@run_argument
@click.option("--run-dir", type=click.Path(path_type=Path), required=True, help="Where to write the run with it.")
@click.option("--components", type=click.IntRange(1), default=50, show_default=True, help="Gaussians of the mixture.")
@click.option("--samples", type=click.IntRange(1), default=500, show_default=True, help="Samples of z, for the gain.")
@click.option("--images", type=click.IntRange(1), default=1000, show_default=True, help="Test examples, for the gain.")
@prints_results
def fit_prior(run, run_dir, components, samples, images, console):
    """Fit a mixture of Gaussians to the latents of the VAE in RUN and print what it gains as its prior."""
    from keras_vae.runs import Run

    run = Run.open(run)
    import_tensorflow()
    from keras_vae import cards, fitting

    new, gain = fitting.fit_prior(run, run_dir, components, samples, images, console)
    return Results({"run": new.path, "gain": gain, "unit": cards.NATS, **cards.load(new)})


@click.command()
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


@click.command()
@run_argument
@click.option("--seconds", type=click.FloatRange(0), default=10.0, show_default=True, help="About how long to take.")
@prints_results
def audit(run, seconds, console):
    """Check the numbers of RUN against the formulas, and its latents for what commonly goes wrong.

    Exits with 0 if every number is what its name says, and with 1 if one is not.
    """
    run, model, data = open_run(run)
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


@click.command()
@run_argument
@click.option("--audit/--no-audit", default=True, help="Show an audit, of at most about 10 seconds.  [audit]")
@prints_results
def report(run, audit, console):
    """Write report.html of RUN: numbers, figures and a page in which its latent space can be explored."""
    run, model, data = open_run(run)
    from keras_vae import training

    if not (run.path / "figures").is_dir():
        training.draw(run, model, data)
    path = training.write_report(run, model, data, console, audit)
    return Results({"path": path}, [path])


@click.command()
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
