"""Images from tensorflow-datasets, folders, .npy and .npz files or scikit-learn, and the batches drawn from them.

`open_dataset` finds the images and keeps train and test apart; `batches` turns one split into a `tf.data.Dataset`.
Every batch is a pure function of (seed, step), so a resumed run sees what an uninterrupted one would have seen.
Nothing here knows a model.
"""

from keras_vae.data.fingerprint import fingerprint
from keras_vae.data.images import ImageSet, LazyImages, Split, value_range
from keras_vae.data.pipeline import batches, binarize, to_pixels
from keras_vae.data.sources import MEMORY_LIMIT, load, open_dataset

__all__ = [
    "MEMORY_LIMIT",
    "ImageSet",
    "LazyImages",
    "Split",
    "batches",
    "binarize",
    "fingerprint",
    "load",
    "open_dataset",
    "to_pixels",
    "value_range",
]
