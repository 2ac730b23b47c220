"""From the table of an axis to choices, options, names and help. Standard library only.

A member of an axis is one class and one row in the table of its module. Its options are the arguments of its
constructor, their types and choices the annotations, and their help what the docstring says of them. Where the module
is not imported, as in `keras-vae train --help`, its skeleton is: classes without the bodies of their methods. Importing
the module takes seconds, because it imports TensorFlow.
"""

import ast
import contextlib
import functools
import importlib
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_vae.options import Option

PACKAGE = Path(__file__).parent
AXES = {
    "network": ("networks", "NETWORKS"),
    "likelihood": ("likelihoods", "LIKELIHOODS"),
    "posterior": ("posteriors", "POSTERIORS"),
    "prior": ("priors", "PRIORS"),
    "objective": ("objectives", "OBJECTIVES"),
    "condition": ("conditions", "CONDITIONS"),
    "corruption": ("layers", "CORRUPTIONS"),
}

# Options that are spelled in another way where all axes share one name space: on the command line, in `Config.replace`.
SPELLINGS = {
    ("prior", "num_components"): "prior_components",
    ("objective", "k"): "importance_samples",
    ("objective", "m"): "importance_groups",
    ("condition", "size"): "condition_size",
    ("corruption", "rate"): "corruption_rate",
}
ELSEWHERE = ("self", "kwargs", "seed")  # arguments that are no options: a model gives all of its parts one seed


@dataclass(frozen=True)
class Member:
    """A row of the table of an axis."""

    name: str
    summary: str
    options: dict[str, Option]


def members(axis: str) -> dict[str, Member]:
    """The rows of the table of an axis: name -> `Member`.

    Example:

    >>> from keras_vae import registry
    >>> registry.members("objective")["iwae"].options["k"].default
    50
    """
    module, table = AXES[axis]
    imported = sys.modules.get(f"keras_vae.{module}")
    names = vars(imported) if hasattr(imported, table) else skeleton(f"keras_vae.{module}")
    if table not in names:
        names = vars(importlib.import_module(f"keras_vae.{module}"))
    return {name: _member(name, cls) for name, cls in names[table].items()}


def name_of(thing: Any) -> str:
    """The name under which the class of an object stands in a table; else the name of the class."""
    for module, table in AXES.values():
        rows = getattr(sys.modules.get(f"keras_vae.{module}"), table, {})
        for name, cls in rows.items():
            if cls is type(thing):
                return str(name)
    return type(thing).__name__


def options_of(thing: Any) -> dict[str, Any]:
    """The values of the options of a member, by name: arguments of its class, found as its attributes."""
    known = _member("", type(thing)).options  # type: ignore[arg-type]  # a class can be hashed
    return {name: getattr(thing, name) for name in known if hasattr(thing, name)}


def flags(axis: str) -> dict[str, str]:
    """The options of all members of an axis: name on the command line -> name of the argument."""
    names = {option: None for member in members(axis).values() for option in member.options}
    return {SPELLINGS.get((axis, option), option): option for option in names}


def help_of(axis: str, option: str) -> str:
    """Help text of an option that several members may have: "mlp, gated: Units ... conv: Channels ..."."""
    texts: dict[str, list[str]] = {}
    for member in members(axis).values():
        if option in member.options:
            texts.setdefault(member.options[option].help, []).append(member.name)
    return " ".join(f"{', '.join(names)}: {text}" for text, names in texts.items())


@functools.cache
def _member(name: str, cls: type | None) -> Member:
    if cls is None:
        return Member(name, "", {})
    help: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        help.update(_arguments(base.__dict__.get("__doc__") or ""))
    options = {}
    for argument, parameter in inspect.signature(cls.__init__).parameters.items():  # type: ignore[misc]
        # only annotated arguments with a default can be given by name and value
        annotated = parameter.annotation is not parameter.empty and parameter.default is not parameter.empty
        if annotated and argument not in ELSEWHERE:
            text = help.get(argument, "")
            options[argument] = Option.of(argument, parameter.annotation, parameter.default, text)
    return Member(name, (cls.__doc__ or "").strip().split("\n")[0], options)


@functools.cache
def skeleton(module: str) -> dict[str, Any]:
    """What a module of this package defines, without what it computes: name -> class, or constant.

    Classes have their docstrings, and constructors that do nothing. Whatever needs another package is left out.
    """
    path = PACKAGE.parent / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    package = ".".join(module.split(".")[:2])  # the module of the axis, or a package of several
    names: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            found = skeleton(str(node.module))
            names |= {alias.asname or alias.name: found[alias.name] for alias in node.names if alias.name in found}
            continue
        if isinstance(node, ast.ImportFrom) and node.module not in ("typing", "keras_vae.options"):
            continue
        if isinstance(node, ast.ClassDef):
            _strip(node, names)
        if isinstance(node, ast.ClassDef | ast.ImportFrom | ast.Assign | ast.AnnAssign):
            with contextlib.suppress(NameError):  # of what is not imported here
                exec(compile(ast.Module([node], []), str(path), "exec"), names)  # noqa: S102  our own source
    return names


def _strip(node: ast.ClassDef, names: dict[str, Any]) -> None:
    """Leaves of a class its docstring, the signature of its constructor, and the bases that are in `names`."""
    constructors = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
    for constructor in constructors:
        constructor.body = [ast.Pass(lineno=node.lineno, col_offset=0)]
    docstring = node.body[:1] if ast.get_docstring(node) else []
    node.body = [*docstring, *constructors] or [ast.Pass(lineno=node.lineno, col_offset=0)]
    node.bases = [base for base in node.bases if isinstance(base, ast.Name) and base.id in names]
    node.decorator_list, node.keywords = [], []


def _arguments(docstring: str) -> dict[str, str]:
    """What the section `Args` of a docstring says: name -> text, without the type at its beginning."""
    section = re.search(r"^( *)Args:\n((?:\1 +.*\n?|\n)*)", inspect.cleandoc(docstring), flags=re.MULTILINE)
    if section is None:
        return {}
    found = {}
    for part in re.split(r"\n {4}(?=\w+: )", "\n" + section.group(2)):
        name, _, text = part.partition(": ")
        text = " ".join(text.split())
        text = re.sub(r"^(Floats?|Ints?|Bool)(, at least 0|, K|, d| above 0| in \[0, 1\])*[,.:] ", "", text)
        found[name.strip()] = text[:1].upper() + text[1:]
    return found
