"""The rows of tests/cases.py that the default run takes have every value of every axis."""

import pytest
from cases import CASES, QUICK, config

from keras_vae import registry
from keras_vae.config import ModelConfig, axes_of, options_of

FIELDS = options_of(ModelConfig()) | axes_of(ModelConfig())
# A size is a size: numbers of units and samples are met by some value, choices and switches by each of theirs.
SIZES = {name for name, field in FIELDS.items() if not field.choices and not isinstance(field.default, bool)}


def met(cases):
    """What of the config is met by cases: (field, value), or (field, whether it differs from its default) of a size."""
    found = set()
    for case in cases:
        for name, value in vars(config(case).model).items():
            value = str(value) if name in registry.AXES else value
            found.add((name, value != FIELDS[name].default if name in SIZES else value))
        found |= {("rank", len(case.shape)), ("channels", case.shape[-1] if len(case.shape) == 3 else None)}
        found |= {("square", case.shape[0] == case.shape[1])} if len(case.shape) == 3 else set()
    return found


def test_the_default_run_meets_all_that_the_cases_meet():
    assert met(CASES) - met([case for case in CASES if case.name in QUICK]) == set()
    assert QUICK <= {case.name for case in CASES}


@pytest.mark.parametrize("name", ["model", "network", "posterior", "likelihood", "prior", "objective", "corruption"])
def test_some_case_has_each_choice(name):
    missing = set(FIELDS[name].choices) - {str(getattr(config(case).model, name)) for case in CASES}
    assert not missing, f"No row of tests/cases.py has {name} {missing}"
