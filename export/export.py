"""Exports a trained model: `python export/export.py RUN [--to DIR]` is `keras-vae export RUN [--to DIR]`."""

import sys

from keras_vae_cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
