"""Numba's compiler, changed so that only entries are optimized and made machine code.

Numba does both for each function together with all that it calls: a function is compiled again for
each level of callers above it, which was nearly half of a first start. Here a part stays as Numba's
front end emits it, until an entry, the only kind that Python calls, links all of its parts.
"""

from __future__ import annotations

from typing import Any

from llvmlite.binding import Linkage
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.runtime.context import NRTContext
from numba.core.typed_passes import BaseNativeLowering, NativeLowering


class _Part(JITCodeLibrary):
    """A library for entries to link, which is saved as bitcode."""

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        # Addresses of Python objects may not be saved. The only ones here are those of the called
        # functions, which nothing reads; Numba checks that none are left in an entry.
        for function in self.get_defined_functions():
            if function.linkage == Linkage.external:  # Several entries may link it.
                function.linkage = Linkage.linkonce_odr
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        self._ensure_finalized()
        return self._final_module

    def serialize_using_object_code(self) -> Any:
        return self.serialize_using_bitcode()

    def get_pointer_to_function(self, _: str) -> int:
        return 0

    @property
    def codegen(self) -> _Part:
        """The object on which Numba calls `set_env`."""
        return self

    def set_env(self, *_: Any) -> None:
        """Does nothing, since only Python objects need an environment."""


class _Entry(JITCodeLibrary):
    """A library of a function that Python calls."""

    def _optimize_final_module(self) -> None:
        # Loops are written with vectors: LLVM's higher levels take longer and gain nothing.
        passes, builder = self._codegen._module_pass_manager(opt=1)
        passes.run(self._final_module, builder)


class _Uncounted(NRTContext):
    """Leaves out reference counting, since Python holds all arrays while a call lasts.

    Passing a record of thirty arrays took thirty calls. A function that counts must not call one
    that does not: it would release references that it was never given.
    """

    def incref(self, *_: Any) -> None: ...

    def decref(self, *_: Any) -> None: ...


class _Lower(Lower):
    def lower_normal_function(self, description: Any) -> None:
        context = self.context
        context.nrt = _Uncounted(context, True)
        try:
            super().lower_normal_function(description)
        finally:  # The wrapper that unpacks Python's arguments counts.
            context.nrt = NRTContext(context, True)


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(BaseNativeLowering):
    _name: Any = "uncounted_lowering"
    lowering_class = _Lower


class LibraryCompiler(Compiler):
    """Numba's compiler with its own kind of library."""

    library: type[JITCodeLibrary]

    def define_pipelines(self) -> Any:
        """Numba's passes, with the lowering of this file."""
        state = self.state
        state.library = self.library(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        pipelines = super().define_pipelines()
        for pipeline in pipelines:
            pipeline.passes = [
                (_Lowering if kind is NativeLowering else kind, text)
                for kind, text in pipeline.passes
            ]
        return pipelines


class PartCompiler(LibraryCompiler):
    """Compiles functions that compiled code calls."""

    library = _Part


class EntryCompiler(LibraryCompiler):
    """Compiles functions that Python calls."""

    library = _Entry
