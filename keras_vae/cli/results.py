"""What commands share: how results are printed, the argument RUN, and how a run is opened."""

import dataclasses
import functools
import json
from pathlib import Path

import click

from keras_vae.config import Config, InputError
from keras_vae.quiet import import_tensorflow

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


def open_run(path):
    """Opens a run with its model and its data."""
    from keras_vae.runs import Run

    run = Run.open(path)
    import_tensorflow()
    return run, run.load_model(), run.open_data()


def read_config(path):
    from keras_vae import files, records

    try:
        content = json.loads(files.read_bytes(path, records.LIMIT))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"Cannot read the config {path}: {error}") from None
    return Config.from_dict(content.get("config") if isinstance(content, dict) else content)
