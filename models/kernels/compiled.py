"""`numba.njit` for the kernels, with a cache that a change in any of their files renews.

Numba's own looks at the file of the function alone, though constants of other files are frozen into
its machine code; and a file that was cut off ends every program. Here each entry is one file behind
a hash of itself and of all the sources: whatever does not fit that is compiled anew.
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
    """One that Python cannot call, and says so: Numba would jump to nowhere."""

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
    """A decorator: machine code for compiled code to call.

    Python cannot: what takes its arguments apart would be compiled for every function, and for
    records of many arrays that is more than all the rest.

    Args:
        options: more of `numba.njit`.
    """
    compile_it = entry(**OF_PARTS | options)

    def decorate(function: F) -> F:
        part: Any = compile_it(function)
        part.__class__ = _Part
        compiled_function: F = part
        return compiled_function

    return decorate


def entry(**options: Any) -> Callable[[F], F]:
    """A decorator: machine code that runs without the GIL and divides as NumPy does.

    Args:
        options: more of `numba.njit`.
    """

    def decorate(function: F) -> F:
        dispatcher: Any = numba.njit(**OPTIONS | options)(function)
        dispatcher._cache = _cache_of(function, dispatcher._compiler.pipeline_class)
        compiled_function: F = dispatcher
        return compiled_function

    return decorate


# For what runs so often that it matters: handing over the arguments takes 0.1 us.
inlined = compiled(forceinline=True)


def _cache_of(function: Callable[..., Any], compiler: type[LibraryCompiler]) -> Any:
    try:
        return _Cache(function, compiler)
    except RuntimeError:  # Numba's, where it finds no folder
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
    """Numba's cache of one function, with other files."""

    def __init__(self, function: Callable[..., Any], compiler: type[LibraryCompiler]) -> None:
        super().__init__(function)
        self.library = compiler.library
        self._cache_file = _Entries(self._cache_path, self._impl.filename_base, SOURCES)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was kept of that signature: entries as machine code, parts as parts."""
        codegen = target_context.codegen()
        usual = codegen._library_class
        codegen._library_class = self.library
        try:
            return super().load_overload(sig, target_context)
        finally:
            codegen._library_class = usual

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keeps what was compiled, if that can be."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _say_once(error.strerror or "it fails")


class _Entries(IndexDataCacheFile):
    """A file for each key, and no index: two processes never write to the same one but the same."""

    def load(self, key: object) -> Any | None:
        """What was saved; None where there is nothing, or it is damaged or of other sources."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        size = hashlib.sha256().digest_size
        whole = content[:size] == self._hash(content[size:])
        return pickle.loads(content[size:]) if whole else None

    def save(self, key: object, data: object) -> None:
        """Puts a file in its place in one step: whoever reads sees all of it, or the last one."""
        path, content = self._path(key), self._dump(data)
        if path.is_dir():
            shutil.rmtree(path)
        with self._open_for_write(path) as file:
            file.write(self._hash(content) + content)

    def _path(self, key: object) -> Path:
        # With the lanes, which are frozen into it as well: no other width takes its place.
        digest = hashlib.sha256(repr((LANES, key)).encode()).digest()
        return Path(self._data_path(self._data_name(int.from_bytes(digest[:6]))))

    def _hash(self, content: bytes) -> bytes:
        return hashlib.sha256(self._source_stamp + content).digest()


def _sources() -> bytes:
    """A hash of what machine code is made of: all files here, and the libraries that compile."""
    versions = numba.__version__, llvmlite.__version__, np.__version__
    return hashlib.sha256(repr(versions).encode() + machine.sources(Path(__file__).parent)).digest()


SOURCES = _sources()
