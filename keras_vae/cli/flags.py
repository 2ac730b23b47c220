"""Flags from options: of the config's fields, and of the members of each axis."""

import dataclasses

import click

from keras_vae import registry
from keras_vae.config import Config, axes_of, options_of, sections
from keras_vae.options import Option


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


class Flag(click.Option):
    """A flag for an `Option`: --latent-dim, or --beta, which elbo and beta_tc have."""

    def __init__(self, option: Option, section: str, name: str | None = None, help: str | None = None):
        name = name or option.name
        dashed = "--" + name.replace("_", "-")
        is_flag = option.kind is bool
        names = [f"{dashed}/--no-{dashed[2:]}" if is_flag else dashed, name]
        super().__init__(names, type=None if is_flag else _click_type(option), default=None, help=help or option.help)
        self.section = f"{section.capitalize()} options"


def _click_type(option: Option) -> click.ParamType:
    if option.choices:
        return click.Choice(option.choices)
    kinds: dict[type, click.ParamType] = {int: click.INT, float: click.FLOAT, str: click.STRING}
    return Ints() if option.several else kinds[option.kind]


def config_options(command):
    """Adds an option for every field of the config, and for the options of the members of each axis."""
    for section_name, section in sections(Config()).items():
        options, axes = options_of(section), axes_of(section)
        for name in (field.name for field in dataclasses.fields(section)):
            if name in options:
                command.params.append(Flag(options[name], section_name, help=_with_default(options[name])))
            else:
                command.params += _of_axis(name, axes[name], section_name)
    return command


def _with_default(option: Option) -> str:
    default = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
    return option.help if default is None or option.kind is bool else f"{option.help}  [{default}]"


def _of_axis(axis: str, choice: Option, section: str) -> list[Flag]:
    """The flag that chooses a member of an axis, and those of the options of its members."""
    flags = [Flag(choice, section, help=_with_default(choice))]
    for flag, name in registry.flags(axis).items():
        option = next(member.options[name] for member in registry.members(axis).values() if name in member.options)
        flags.append(Flag(option, section, flag, registry.help_of(axis, name)))
    return flags
