"""The import arrows of the design, held by reading the source."""

import ast
import pathlib
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "keras_vae"
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path):
    """keras_vae/models/vae.py -> models: a package counts as one module."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Dotted names of everything that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"{path}: relative import; write it from keras_vae")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


MODULES = sorted({module_of(path) for path in FILES} - {"__init__"})
ARROWS = {name: set() for name in MODULES}  # module -> modules of the package that it imports itself
OUTSIDE = {name: set() for name in MODULES}  # module -> top-level packages from elsewhere
for file in FILES:
    if file != PACKAGE / "__init__.py":
        for dotted in imports(file):
            top, _, rest = dotted.partition(".")
            target = rest.partition(".")[0]
            if top != "keras_vae":
                OUTSIDE[module_of(file)].add(top)
            elif target in MODULES and target != module_of(file):
                ARROWS[module_of(file)].add(target)


def reachable(module):
    """Every module that `module` imports, directly or through others."""
    seen, front = set(), {module}
    while front:
        front = set().union(*(ARROWS[name] for name in front)) - seen
        seen |= front
    return seen


# Lowest first; an arrow may only point to a module of a lower layer, or within the same layer without a circle.
LAYERS = (
    {"registry", "config", "gaussian", "noise"},
    {"keras_private", "presets", "likelihoods", "priors", "objectives", "layers", "networks"},
    {"train"},
    {"models"},
    {"training", "serving"},
    {"cli"},
)
HEIGHT = {module: height for height, layer in enumerate(LAYERS) for module in layer}


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_down(module):
    upwards = {other for other in reachable(module) if HEIGHT.get(other, -1) > HEIGHT.get(module, len(LAYERS))}
    assert not upwards
    assert module not in reachable(module), "circular import"


@pytest.mark.parametrize("module", [name for name in ("data", "plotting", "evaluation") if name in MODULES])
def test_data_plotting_and_evaluation_know_no_model(module):
    assert not reachable(module) & {"models", "training", "serving", "cli"}


@pytest.mark.parametrize("module", MODULES)
def test_only_plotting_imports_matplotlib(module):
    assert module == "plotting" or "matplotlib" not in OUTSIDE[module]


@pytest.mark.parametrize("module", ["config", "presets", "registry"])
def test_configuration_is_standard_library_only(module):
    used = set().union(*(OUTSIDE[name] for name in {module, *reachable(module)}))
    assert used <= set(sys.stdlib_module_names)
    assert reachable(module) <= {"config", "registry"}


def test_the_checks_above_see_the_imports():
    assert {"gaussian"} <= ARROWS["likelihoods"] and {"layers", "likelihoods", "config"} <= ARROWS["models"]
    assert "gaussian" in reachable("models") and "keras" in OUTSIDE["networks"]
