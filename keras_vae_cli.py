"""Where `keras-vae` and train.py start. That this module is loaded tells keras_vae/__init__.py to be quick."""


def main(arguments=None):
    """Runs the command line; see `keras_vae.cli`."""
    from keras_vae import cli

    return cli.main(arguments)
