"""Answers requests through TensorFlow's C API by ctypes, in a process without TensorFlow's Python.

    python serving_c_api.py MODEL_DIR REQUESTS ANSWERS

REQUESTS is a pickled list of (feeds: dict of tensor name -> array, fetches: list of tensor names); ANSWERS a pickled
list of (status code, list of arrays), written after every answer, so that a death shows how far it came.
`TF_LoadSessionFromSavedModel` and `TF_SessionRun` are what the server calls beneath its own interfaces.
"""

import ctypes
import importlib.util
import pathlib
import pickle
import sys

import numpy as np

CODES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 7: "object", 9: "int64"}
NUMBERS = {name: code for code, name in CODES.items()}
STRING_BYTES = 24  # a TF_TString


class Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


def load_library():
    folder = pathlib.Path(importlib.util.find_spec("tensorflow").origin).parent
    library = ctypes.CDLL(str(next(folder.glob("libtensorflow_cc.*"))))
    pointers = (
        "TF_NewStatus TF_NewGraph TF_NewSessionOptions TF_LoadSessionFromSavedModel TF_GraphOperationByName "
        "TF_AllocateTensor TF_TensorData"
    )
    for name in pointers.split():
        getattr(library, name).restype = ctypes.c_void_p
    library.TF_Message.restype = ctypes.c_char_p
    library.TF_StringGetDataPointer.restype = ctypes.c_void_p
    library.TF_StringGetSize.restype = ctypes.c_size_t
    library.TF_Dim.restype = ctypes.c_int64
    return library


class Session:
    """A SavedModel, loaded by its path."""

    def __init__(self, path):
        self.c = load_library()
        self.status = ctypes.c_void_p(self.c.TF_NewStatus())
        self.graph = ctypes.c_void_p(self.c.TF_NewGraph())
        options = ctypes.c_void_p(self.c.TF_NewSessionOptions())
        tags = (ctypes.c_char_p * 1)(b"serve")
        session = self.c.TF_LoadSessionFromSavedModel(
            options, None, str(path).encode(), tags, 1, self.graph, None, self.status
        )
        if self.c.TF_GetCode(self.status):
            raise RuntimeError(self.c.TF_Message(self.status).decode())
        self.session = ctypes.c_void_p(session)

    def run(self, feeds, fetches):
        """Returns (status code, arrays)."""
        inputs = (Output * len(feeds))(*map(self._output, feeds))
        values = (ctypes.c_void_p * len(feeds))(*map(self._to_tensor, feeds.values()))
        outputs = (Output * len(fetches))(*map(self._output, fetches))
        answers = (ctypes.c_void_p * len(fetches))()
        self.c.TF_SessionRun(
            self.session, None, inputs, values, len(feeds), outputs, answers, len(fetches), None, 0, None, self.status
        )
        for value in values:
            self.c.TF_DeleteTensor(ctypes.c_void_p(value))
        code = self.c.TF_GetCode(self.status)
        return code, [] if code else [self._to_array(ctypes.c_void_p(answer)) for answer in answers]

    def _output(self, name):
        operation, _, index = name.partition(":")
        return Output(self.c.TF_GraphOperationByName(self.graph, operation.encode()), int(index))

    def _to_tensor(self, array):
        dims = (ctypes.c_int64 * array.ndim)(*array.shape)
        is_string = array.dtype == object
        size = array.size * STRING_BYTES if is_string else array.nbytes
        tensor = self.c.TF_AllocateTensor(NUMBERS[array.dtype.name], dims, array.ndim, ctypes.c_size_t(size))
        data = self.c.TF_TensorData(ctypes.c_void_p(tensor))
        if is_string:
            for i, value in enumerate(array.reshape(-1)):
                string = ctypes.c_void_p(data + i * STRING_BYTES)
                self.c.TF_StringInit(string)
                self.c.TF_StringCopy(string, value, ctypes.c_size_t(len(value)))
        elif size:
            ctypes.memmove(data, np.ascontiguousarray(array).ctypes.data, size)
        return tensor

    def _to_array(self, tensor):
        shape = [self.c.TF_Dim(tensor, axis) for axis in range(self.c.TF_NumDims(tensor))]
        dtype = CODES[self.c.TF_TensorType(tensor)]
        data, array = self.c.TF_TensorData(tensor), np.empty(shape, dtype)
        if dtype == "object":
            for i in range(array.size):
                string = ctypes.c_void_p(data + i * STRING_BYTES)
                length = self.c.TF_StringGetSize(string)
                array.reshape(-1)[i] = ctypes.string_at(self.c.TF_StringGetDataPointer(string), length)
        else:
            ctypes.memmove(array.ctypes.data, data, array.nbytes)
        self.c.TF_DeleteTensor(tensor)
        return array


def main(path, requests, answers):
    session = Session(path)
    with open(requests, "rb") as source, open(answers, "wb") as target:
        for feeds, fetches in pickle.load(source):
            pickle.dump(session.run(feeds, fetches), target)
            target.flush()
    if "tensorflow" in sys.modules:
        raise RuntimeError("TensorFlow's Python was imported.")


if __name__ == "__main__":
    main(*sys.argv[1:])
