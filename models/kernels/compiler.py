"""Numba's compiler, but what an entry calls is optimized and made machine code once, with it.

Numba does both for each function, with all that it calls: what lies deep is done as often as there
are levels above it, and nearly half of a first start was that. Here a part stays what Numba's front
end makes of it, until an entry, the only kind that Python calls, takes all of its parts in.
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
    """Code for entries to take in, which is kept as that."""

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        # The addresses of Python's objects in it, which may not be kept, are those of the functions
        # that it calls, and nothing reads them. Numba looks for any that are left in an entry.
        for function in self.get_defined_functions():
            if function.linkage == Linkage.external:  # Several entries may have it.
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
        """What is asked to `set_env`."""
        return self

    def set_env(self, *_: Any) -> None:
        """The environment is of use to Python's objects only."""


class _Entry(JITCodeLibrary):
    """Code that Python calls."""

    def _optimize_final_module(self) -> None:
        # Loops are written as vectors: LLVM's higher levels take longer and bring no speed.
        passes, builder = self._codegen._module_pass_manager(opt=1)
        passes.run(self._final_module, builder)


class _Uncounted(NRTContext):
    """Python holds all arrays while a call lasts; counting who refers to them is work for nothing.

    A record of thirty arrays was thirty calls each time it was handed on. A function that counts
    must not call one that does not: it would let go of what it was never given.
    """

    def incref(self, *_: Any) -> None: ...

    def decref(self, *_: Any) -> None: ...


class _Lower(Lower):
    def lower_normal_function(self, description: Any) -> None:
        context = self.context
        context.nrt = _Uncounted(context, True)
        try:
            super().lower_normal_function(description)
        finally:  # What takes the arguments from Python counts.
            context.nrt = NRTContext(context, True)


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(BaseNativeLowering):
    _name: Any = "uncounted_lowering"
    lowering_class = _Lower


class LibraryCompiler(Compiler):
    """Numba's compiler with a kind of library of its own."""

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
    """Of what compiled code calls."""

    library = _Part


class EntryCompiler(LibraryCompiler):
    """Of what Python calls."""

    library = _Entry
