"""Vectors in a report: what is in each column of the data, and in what the model makes."""

from typing import Any

import numpy as np

from keras_vae import cards, figures

SHOWN = 100  # columns


def column_rows(model: Any, x: np.ndarray, labels: np.ndarray | None = None) -> list[dict[str, str]]:
    """A row for each of the first `SHOWN` columns of vectors: original against drawn, and reconstructed.

    Args:
        model: A trained model.
        x: Float32 [n, d], test examples.
        labels: Int [n], of a model that takes them.

    Returns:
        List of dicts of text: column; mean, stddev, low and high (quantiles at 5 % and 95 %) of the original values,
        and those of values drawn from a VAE, as drawn_mean and so on; explained, the share of the variance that the
        reconstruction explains.
    """
    reconstructed = np.asarray(model.reconstruct(x, *([labels] if model.takes_labels else [])))
    with np.errstate(divide="ignore", invalid="ignore"):
        explained = 1 - np.mean((x - reconstructed) ** 2, axis=0) / np.var(x, axis=0)
    parts = {"": _statistics(x)}
    if hasattr(model, "generate"):
        parts["drawn_"] = _statistics(figures.draw_examples(model, figures.DRAWN, labels))
    rows = []
    for column, share in enumerate(explained[:SHOWN]):
        row = {"column": str(column), "explained": f"{round(100 * share)} %" if np.isfinite(share) else ""}
        for prefix, statistics in parts.items():
            row |= {f"{prefix}{name}": cards.number(float(values[column])) for name, values in statistics.items()}
        rows.append(row)
    return rows


def _statistics(x: np.ndarray) -> dict[str, np.ndarray]:
    low, high = np.quantile(x, [0.05, 0.95], axis=0)
    return {"mean": x.mean(axis=0), "stddev": x.std(axis=0), "low": low, "high": high}
