"""Commands that pass a model on: export, verify-export, publish."""

from pathlib import Path

import click

from keras_vae.cli.results import Results, prints_results, run_argument
from keras_vae.config import EXPORT_FORMATS
from keras_vae.quiet import import_tensorflow


@click.command()
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


@click.command("verify-export")
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


@click.command()
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
