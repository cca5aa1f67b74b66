"""A forest as NVIDIA's FIL backend runs it on a CPU: treelite's inference, and what is made of its scores.

Follows ``tl_model.h``, ``shared_state.h`` and ``model.h`` of triton-inference-server/fil_backend (26.06), by the same
library in the same precision: rows, sums and outputs are fp32. ``libtreelite.so`` is used directly, as the Python
package of treelite imports scipy, which is 30 times its size. `tritonkit build` runs this very file too.
"""

import ctypes
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# `model_type` → the file that the backend looks for, where `default_model_filename` names no other.
FILES = {
    "xgboost": "xgboost.model",
    "xgboost_json": "xgboost.json",
    "xgboost_ubj": "xgboost.ubj",
    "lightgbm": "model.txt",
    "treelite_checkpoint": "checkpoint.tl",
}
DEFAULT_TYPE = "xgboost"  # XGBoost's binary format of before 2.1
INPUT, OUTPUT, SHAP_OUTPUT = "input__0", "output__0", "treeshap_output"
TASKS = ("binary", "regression", "multiclass", "ranking", "isolation")  # treelite's TaskType, in its order
_LOADERS = {
    "xgboost": "TreeliteLoadXGBoostModelLegacyBinary",
    "xgboost_json": "TreeliteLoadXGBoostModelJSON",
    "xgboost_ubj": "TreeliteLoadXGBoostModelUBJSON",
    "lightgbm": "TreeliteLoadLightGBMModel",
}
_JSON = ("xgboost_json", "xgboost_ubj")
_LAYOUTS = {"depth_first", "breadth_first", "layered", "layered_children_together"}
_NUMPY = {b"=b": "i1", b"=l": "i4", b"=L": "u4", b"=Q": "u8", b"=B": "u1", b"=f": "f4", b"=d": "f8", b"=c": "S1"}


class ForestError(ValueError):
    """A forest that cannot be loaded or run; the message says why."""


@dataclass(frozen=True)
class Settings:
    """What the parameters of ``config.pbtxt`` say.

    Attributes:
        model_type: The file's format; a key of ``FILES``.
        is_classifier: Whether scores are turned into classes where probabilities are not asked for.
        predict_proba: Whether a classifier answers with probabilities.
        threshold: Of a binary classifier: the probability above which the class is 1.
        allow_unknown_field: Whether fields of an XGBoost file that treelite does not know are passed over.
        threads: Threads of one prediction; below 1: as many as there are cores.
    """

    model_type: str = DEFAULT_TYPE
    is_classifier: bool = False
    predict_proba: bool = False
    threshold: float = 0.5
    allow_unknown_field: bool = False
    threads: int = -1


def read_settings(parameters: Mapping[str, str]) -> Settings:
    """The settings of a configuration's parameters, name to text.

    Raises:
        ForestError: A parameter is missing, or has a value that the backend does not read.
    """
    model_type = parameters.get("model_type", DEFAULT_TYPE)
    if model_type not in FILES:
        raise ForestError(f"parameter model_type is {model_type!r}; one of {', '.join(FILES)}")
    # Up to 25.08 the backend called it output_class; later ones read that name too.
    name = "output_class" if parameters.get("output_class") in {"true", "false"} else "is_classifier"
    classifies = _boolean(parameters, name, None)
    if (layout := parameters.get("layout", "depth_first")) not in _LAYOUTS:
        raise ForestError(f"parameter layout is {layout!r}; one of depth_first, breadth_first, layered")
    threshold = 0.5
    if classifies:
        try:
            # By its source the backend needs it of every classifier; its documentation says 0.5.
            threshold = float(parameters.get("threshold", threshold))
        except ValueError:
            raise ForestError(f"parameter threshold is {parameters['threshold']!r}, not a number") from None
    return Settings(
        model_type, classifies, _boolean(parameters, "predict_proba", False), threshold,
        _boolean(parameters, "xgboost_allow_unknown_field", False), _integer(parameters, "cpu_nthread", -1),
    )  # fmt: skip


class Forest:
    """A forest in memory.

    Args:
        path: Its file.
        settings: How it is served.

    Attributes:
        num_feature: Columns of a row.
        num_class: Columns of the scores; 1 for a binary classifier of one score.
        task: One of ``TASKS``.
        postprocessor: treelite's name of what is done with the sums of leaves.

    Raises:
        ForestError: treelite does not read the file, or the backend does not serve such a forest.
    """

    def __init__(self, path: Path | str, settings: Settings) -> None:
        self.settings = settings
        self._lent: list[Array] = []
        self._handle = _load(Path(path), settings)
        feature = ctypes.c_size_t()
        check(library().TreeliteQueryNumFeature(self._handle, ctypes.byref(feature)))
        self.num_feature = int(feature.value)
        if (targets := int(self.field("num_target")[0])) != 1:
            raise ForestError(f"the forest has {targets} targets, and the FIL backend serves forests of one")
        self.num_class = int(self.field("num_class")[0])
        self.task = TASKS[int(self.field("task_type")[0])]
        if settings.predict_proba and self.task == "multiclass":
            vector = int(self.field("leaf_vector_shape")[1]) > 1
            self.set_postprocessor("identity_multiclass" if vector else "softmax")
        self.postprocessor = self.text_field("postprocessor")
        self._configuration = ctypes.c_void_p()
        text = b'{"predict_type": "default", "nthread": %d}' % settings.threads
        check(library().TreeliteGTILParseConfig(text, ctypes.byref(self._configuration)))

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            library().TreeliteFreeModel(self._handle)
        if getattr(self, "_configuration", None):
            library().TreeliteGTILDeleteConfig(self._configuration)

    @property
    def widths(self) -> tuple[int, ...]:
        """The numbers of output columns that it can answer with."""
        settings = self.settings
        if settings.is_classifier and not settings.predict_proba:
            return (1,)
        if settings.is_classifier and self.num_class == 1:
            return (1, 2)
        return (self.num_class,)

    def field(self, name: str) -> Array:
        """A field of treelite's header, as an array."""
        frame = _Frame()
        check(library().TreeliteGetHeaderField(self._handle, name.encode(), ctypes.byref(frame)))
        return _array(frame)

    def tree_field(self, tree: int, name: str) -> Array:
        """A field of one tree, as an array."""
        frame = _Frame()
        check(library().TreeliteGetTreeField(self._handle, ctypes.c_uint64(tree), name.encode(), ctypes.byref(frame)))
        return _array(frame)

    def set_tree_field(self, tree: int, name: str, values: Array) -> None:
        """Replace a field of one tree by an array of the same dtype and length."""
        frame = _frame(values)
        self._lent.append(values)
        check(library().TreeliteSetTreeField(self._handle, ctypes.c_uint64(tree), name.encode(), frame))

    def text_field(self, name: str) -> str:
        """A field of treelite's header that is text."""
        return self.field(name).tobytes().decode()

    def set_postprocessor(self, name: str) -> None:
        """Replace what is done with the sums of leaves."""
        text = np.frombuffer(name.encode(), "S1")
        self._lent.append(text)  # treelite goes on reading it there
        frame = _frame(text)
        check(library().TreeliteSetHeaderField(self._handle, b"postprocessor", frame))

    def scores(self, rows: Array) -> Array:
        """What treelite computes of fp32 rows ``[n, num_feature]``: fp32 ``[n, num_class]``."""
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        result = np.zeros((len(rows), self.num_class), np.float32)
        check(
            library().TreeliteGTILPredict(
                self._handle, rows.ctypes.data_as(ctypes.c_void_p), b"float32", ctypes.c_uint64(len(rows)),
                result.ctypes.data_as(ctypes.c_void_p), self._configuration,
            )
        )  # fmt: skip
        return result

    def predict(self, rows: Array, width: int) -> Array:
        """What the backend answers.

        Args:
            rows: fp32 ``[n, num_feature]``; NaN is a missing value.
            width: Columns of the output, one of :attr:`widths`.

        Returns:
            fp32 ``[n, width]``.
        """
        scores = self.scores(rows)
        settings = self.settings
        if settings.is_classifier and not settings.predict_proba:
            if self.num_class == 1:
                return (scores > np.float32(settings.threshold)).astype(np.float32)
            # The first of the largest scores; the backend begins at 0, so that no class is below it.
            return np.where((scores > 0).any(axis=1), scores.argmax(axis=1), 0).astype(np.float32)[:, None]
        if width == 2 and self.num_class == 1:
            return np.concatenate([1 - scores, scores], axis=1)
        return scores


def answer_dims(dims: Sequence[int]) -> list[int]:
    """The dimensions of an answer beside its rows: the backend drops those of 1."""
    return [dim for dim in dims if dim != 1]


class _Frame(ctypes.Structure):
    """How treelite hands over an array."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("format", ctypes.c_char_p),
        ("itemsize", ctypes.c_size_t),
        ("nitem", ctypes.c_size_t),
    ]


def _array(frame: _Frame) -> Array:
    dtype = np.dtype(_NUMPY[frame.format])
    if not frame.buf or not frame.nitem:
        return np.array([], dtype)
    return np.frombuffer(ctypes.string_at(frame.buf, frame.nitem * frame.itemsize), dtype)


def _frame(array: Array) -> _Frame:
    names = {np.dtype(dtype): name for name, dtype in _NUMPY.items()}
    return _Frame(array.ctypes.data, names[array.dtype], array.itemsize, array.size)


@cache
def library() -> Any:
    """treelite's own library, loaded once."""
    spec = importlib.util.find_spec("treelite")
    places = list(spec.submodule_search_locations or ()) if spec else []
    path = next((file for place in places for file in Path(place).glob("lib/libtreelite.*")), None)
    if path is None:
        raise ForestError("treelite is not installed")
    loaded = ctypes.CDLL(str(path))
    loaded.TreeliteGetLastError.restype = ctypes.c_char_p
    for name in ("TreeliteFreeModel", "TreeliteGTILDeleteConfig"):
        getattr(loaded, name).argtypes = [ctypes.c_void_p]
    # Its warnings and messages go to the standard output otherwise.
    loaded.silence = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda _: None)
    loaded.TreeliteRegisterLogCallback(loaded.silence)
    loaded.TreeliteRegisterWarningCallback(loaded.silence)
    return loaded


def check(status: int) -> None:
    """Raise what treelite says of a call that failed."""
    if status:
        text = library().TreeliteGetLastError().decode("utf-8", "replace")
        raise ForestError(f"treelite: {' '.join(text.split())}")


def _load(path: Path, settings: Settings) -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    if not path.is_file():
        raise ForestError(f"there is no file {path.name}, where model_type is {settings.model_type}")
    name = str(path).encode()
    if settings.model_type == "treelite_checkpoint":
        check(library().TreeliteDeserializeModelFromFile(name, ctypes.byref(handle)))
    else:
        allowed = b"true" if settings.allow_unknown_field else b"false"
        text = b'{"allow_unknown_field": %s}' % allowed if settings.model_type in _JSON else b"{}"
        check(getattr(library(), _LOADERS[settings.model_type])(name, text, ctypes.byref(handle)))
    return handle


def _boolean(parameters: Mapping[str, str], name: str, default: bool | None) -> bool:
    if name not in parameters:
        if default is None:
            raise ForestError(f"the parameter {name} is missing; true or false")
        return default
    if parameters[name] not in {"true", "false"}:
        raise ForestError(f"parameter {name} is {parameters[name]!r}, neither true nor false")
    return parameters[name] == "true"


def _integer(parameters: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(parameters.get(name, default))
    except ValueError:
        return default  # as the backend does
