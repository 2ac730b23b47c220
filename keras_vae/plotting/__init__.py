"""Pictures of what a model has learnt: numpy arrays in, `matplotlib.figure.Figure` out.

The only module that imports matplotlib; it knows no model. It uses the object interface alone: nothing is registered
with pyplot, so no display is needed and a figure that is dropped is freed.

Images are [n, h, w, c] or [rows, columns, h, w, c], float pixels in [0, 1], c in {1, 3}, and are drawn as stored: at
the default resolution a pixel is a block of whole pixels of the PNG. Losses and KL divergences are in nats. `footnote`
is small text below everything, e.g. "preset mlp, mnist test, grey pixels". Sequences and vectors are drawn as curves of
real values, and as histograms.

Raises: every function raises ValueError for arguments of a wrong shape, pixels outside [0, 1] and NaN, except that
`training_curves` draws a diverged run with gaps where it is not finite.
"""

from keras_vae.plotting.charts import PANELS, compared_curves, kl_per_dimension, latent_space, training_curves
from keras_vae.plotting.curves import curve_bundles, curve_families, curve_panels, histograms, rasterized
from keras_vae.plotting.files import save, save_animation, save_png
from keras_vae.plotting.images import (
    class_samples,
    image_grid,
    interpolations,
    manifold,
    reconstructions,
    samples,
    traversals,
)
from keras_vae.plotting.style import DPI, FAINT, PALETTE, TEST, TRAIN

__all__ = [
    "DPI",
    "FAINT",
    "PALETTE",
    "PANELS",
    "TEST",
    "TRAIN",
    "class_samples",
    "compared_curves",
    "curve_bundles",
    "curve_families",
    "curve_panels",
    "histograms",
    "image_grid",
    "interpolations",
    "kl_per_dimension",
    "latent_space",
    "manifold",
    "rasterized",
    "reconstructions",
    "samples",
    "save",
    "save_animation",
    "save_png",
    "training_curves",
    "traversals",
]
