"""The card of a model: its results with all that a reader has to know about them."""

from typing import Any

from keras_vae import registry
from keras_vae.cards import unit
from keras_vae.evaluation.scores import given, has_likelihood, loss_batch


def card(
    model: Any, images: Any, results: dict[str, Any], *, protocol: dict[str, Any], versions: dict[str, str]
) -> dict[str, Any]:
    """Puts results and what they mean into one dict.

    Args:
        model: The model that was scored.
        images: Float32 [n, ...], the images it was scored on.
        results: What `evaluate` returned.
        protocol: Dict: data set, split, pixels, binarisation, samples and seeds.
        versions: Dict: package -> version.

    Returns:
        Dict for JSON: protocol, model, results, units, versions.
    """
    objective = getattr(model, "objective", None)
    described = {
        "class": type(model).__name__,
        "likelihood": registry.name_of(model.likelihood),
        "pixels_have_a_likelihood": has_likelihood(model, images),
        "loss": loss_meaning(model, images),
    }
    if objective is not None:
        described |= {
            "prior": registry.name_of(model.prior),
            "objective": registry.name_of(objective),
            **_settings(objective),
        }
    return {
        "protocol": {
            **protocol,
            "likelihood": described["likelihood"],
            "given": given(model) or "nothing",
        },
        "model": described,
        "results": results,
        "units": {name: unit(name) for name in results},
        "versions": versions,
    }


def loss_meaning(model: Any, images: Any) -> str:
    """What the loss of a model is: called the negative ELBO only if it is one."""
    objective = getattr(model, "objective", None)
    if objective is None:
        return "the reconstruction loss, and penalties"
    name, config = registry.name_of(objective), _settings(objective)
    settings = ", ".join(f"{key} {value:g}" for key, value in config.items() if value)
    if name == "beta_tc":
        settings += f", q(z) from batches of {loss_batch(model)} images"
    if name != "elbo":
        return f"objective {name} ({settings}): not the negative ELBO"
    if config["beta"] != 1 or config["free_bits"]:
        return f"weighted ({settings}): not the negative ELBO"
    condition = f", given {given(model)}" if given(model) else ""
    return (
        f"the negative ELBO{condition}" if has_likelihood(model, images) else "no ELBO: these pixels have no likelihood"
    )


def _settings(objective: Any) -> dict[str, Any]:
    """The numbers that an objective was made with: name -> number."""
    options = registry.options_of(objective)
    return {name: value for name, value in options.items() if type(value) in (int, float)}
