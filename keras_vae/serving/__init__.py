"""Serving: SavedModels for TensorFlow Serving and plain TensorFlow, ONNX and LiteRT files, and their verification."""

from keras_vae.serving.export import FORMATS, Export, export_saved_models, verify_export

__all__ = ["FORMATS", "Export", "export_saved_models", "verify_export"]
