"""The command line. Flags come from the config; the heavy parts are imported when a command runs."""

import click

from keras_vae import __version__, installed
from keras_vae.cli import examples, serving, training
from keras_vae.cli.flags import config_options
from keras_vae.config import InputError, RunStopped

__all__ = ["cli", "config_options", "main"]


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


for command in (
    training.train,
    training.evaluate,
    training.fit_prior,
    training.compare,
    training.audit,
    serving.export,
    serving.verify_export,
    serving.publish,
    examples.generate,
    examples.reconstruct,
    examples.encode,
    training.report,
    training.presets,
):
    cli.add_command(command)


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
