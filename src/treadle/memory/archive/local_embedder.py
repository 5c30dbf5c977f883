"""Embeddings of a model in this process, through the extra `treadle[embeddings]`.

https://qdrant.github.io/fastembed/
"""

import threading
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Protocol, cast

from treadle.errors import MissingExtra
from treadle.memory.archive.embedders import Vectors, in_embedder_thread

BATCH = 64


class _Loaded(Protocol):
    def embed(self, documents: Sequence[str], *, batch_size: int) -> Iterable[Sequence[float]]: ...


class LocalEmbedder:
    """An embedding model that runs in this process, by ONNX and without a server.

    - `model`: a name that fastembed knows, such as `"BAAI/bge-small-en-v1.5"`. The model is loaded
      with the first texts, and downloaded before if it is not on this machine yet.
    - `batch`: the number of texts that are computed at once.

    Raises `MissingExtra` if fastembed is not installed.
    """

    def __init__(self, model: str, *, batch: int = BATCH) -> None:
        try:
            import_module("fastembed")
        except ImportError as error:
            raise MissingExtra(
                "LocalEmbedder needs fastembed: pip install 'treadle[embeddings]'."
            ) from error
        self._model = model
        self._batch = batch
        self._loaded: _Loaded | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._model

    @property
    def dimensions(self) -> int | None:
        """None: the first vector shows it."""
        return None

    def __repr__(self) -> str:
        return f"LocalEmbedder({self._model!r})"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Returns a vector for each text, computed in a thread."""
        return await in_embedder_thread(self._vectors, list(texts))

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        with self._lock:  # one after another: each uses all cores
            if self._loaded is None:
                kind = import_module("fastembed").TextEmbedding
                self._loaded = cast("_Loaded", kind(model_name=self._model))
            return list(self._loaded.embed(texts, batch_size=self._batch))
