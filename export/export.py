"""Exports a trained model: `python export/export.py RUN [--to DIR]` is `keras-vae export RUN [--to DIR]`."""

import sys

if __name__ == "__main__":
    sys.argv = ["keras-vae", "export", *sys.argv[1:]]  # first, for then keras_vae starts as the command line does

    from keras_vae.cli import main

    sys.exit(main())
