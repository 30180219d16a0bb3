"""`numba.njit` for the kernels, with a cache that a change in any of their files invalidates.

Numba's own cache checks the file of the function alone, though constants of other files are frozen
into its machine code; and a truncated cache file ends every program. Here each entry is one file
that begins with a hash of itself and of all sources: one that does not match is compiled anew.
"""

from __future__ import annotations

import hashlib
import pickle
import shutil
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
import numba
import numpy as np
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache
from numba.core.registry import CPUDispatcher

from models.kernels import machine
from models.kernels.compiler import EntryCompiler, LibraryCompiler, PartCompiler
from models.kernels.lanes import LANES

F = TypeVar("F", bound=Callable[..., Any])


class _Part(CPUDispatcher):
    """A function that refuses calls from Python, for which Numba would jump to address 0."""

    def __call__(self, *_: object) -> None:
        raise TypeError(f"{self.py_func.__name__} is for compiled code; Python calls an `entry`")


OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,
    "pipeline_class": EntryCompiler,
}
OF_PARTS = OPTIONS | {"no_cpython_wrapper": True, "pipeline_class": PartCompiler}


def compiled(**options: Any) -> Callable[[F], F]:
    """A decorator that compiles a function for other compiled code to call.

    Python cannot call it: the wrapper that unpacks Python's arguments would be compiled for every
    function, and for records of many arrays that is more than all the rest.

    Args:
        options: further options of `numba.njit`.
    """
    compile_it = entry(**OF_PARTS | options)

    def decorate(function: F) -> F:
        part: Any = compile_it(function)
        part.__class__ = _Part
        compiled_function: F = part
        return compiled_function

    return decorate


def entry(**options: Any) -> Callable[[F], F]:
    """A decorator that compiles a function for Python to call, without the GIL.

    It divides as NumPy does.

    Args:
        options: further options of `numba.njit`.
    """

    def decorate(function: F) -> F:
        dispatcher: Any = numba.njit(**OPTIONS | options)(function)
        dispatcher._cache = _cache_of(function, dispatcher._compiler.pipeline_class)
        compiled_function: F = dispatcher
        return compiled_function

    return decorate


# For functions that run so often that passing their arguments matters: it takes 0.1 us.
inlined = compiled(forceinline=True)


def _cache_of(function: Callable[..., Any], compiler: type[LibraryCompiler]) -> Any:
    try:
        return _Cache(function, compiler)
    except RuntimeError:  # Numba's, if it finds no folder
        _say_once("neither the folder of the kernels nor the user's cache can be written")
        return NullCache()


@lru_cache
def _say_once(reason: str) -> None:
    print(
        f"Compiled kernels cannot be kept ({reason}): every start compiles them anew, which takes "
        "up to half a minute. Set NUMBA_CACHE_DIR to a folder that can be written.",
        file=sys.stderr,
    )


class _Cache(FunctionCache):
    """Numba's cache of one function, with files of its own format."""

    def __init__(self, function: Callable[..., Any], compiler: type[LibraryCompiler]) -> None:
        super().__init__(function)
        self.library = compiler.library
        self._cache_file = _Entries(self._cache_path, self._impl.filename_base, SOURCES)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Loads the code of a signature: machine code of an entry, bitcode of a part."""
        codegen = target_context.codegen()
        usual = codegen._library_class
        codegen._library_class = self.library
        try:
            return super().load_overload(sig, target_context)
        finally:
            codegen._library_class = usual

    def save_overload(self, sig: Any, data: Any) -> None:
        """Saves the code of a signature, if the folder can be written."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _say_once(error.strerror or "it fails")


class _Entries(IndexDataCacheFile):
    """One file for each key, and no index: two processes only ever write the same to a file."""

    def load(self, key: object) -> Any | None:
        """The saved entry; None if there is none, or it is damaged or of other sources."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        size = hashlib.sha256().digest_size
        whole = content[:size] == self._hash(content[size:])
        return pickle.loads(content[size:]) if whole else None

    def save(self, key: object, data: object) -> None:
        """Replaces the file in one step: a reader sees all of it, or the one before."""
        path, content = self._path(key), self._dump(data)
        if path.is_dir():
            shutil.rmtree(path)
        with self._open_for_write(path) as file:
            file.write(self._hash(content) + content)

    def _path(self, key: object) -> Path:
        # The number of lanes is frozen into the code too, so it is part of the name.
        digest = hashlib.sha256(repr((LANES, key)).encode()).digest()
        return Path(self._data_path(self._data_name(int.from_bytes(digest[:6]))))

    def _hash(self, content: bytes) -> bytes:
        return hashlib.sha256(self._source_stamp + content).digest()


def _sources() -> bytes:
    """A hash of what machine code depends on: all files here, and the versions of the compilers."""
    versions = numba.__version__, llvmlite.__version__, np.__version__
    return hashlib.sha256(repr(versions).encode() + machine.sources(Path(__file__).parent)).digest()


SOURCES = _sources()
