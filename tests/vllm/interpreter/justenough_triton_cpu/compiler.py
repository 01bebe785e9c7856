from __future__ import annotations

from triton.backends.compiler import BaseBackend, GPUTarget


class CPUBackend(BaseBackend):  # type: ignore[misc]
    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        return bool(target.backend == "cpu")

    def hash(self) -> str:
        return "interpreter"

    def parse_options(self, options: dict[str, object]) -> object:
        raise NotImplementedError

    def add_stages(self, stages: object, options: object, language: object = None) -> None:
        raise NotImplementedError

    def load_dialects(self, context: object) -> None:
        """Nothing is compiled."""

    def get_module_map(self) -> dict[str, object]:
        return {}

    def get_codegen_implementation(self, options: object) -> dict[str, object]:
        return {}

    def pack_metadata(self, metadata: object) -> tuple[()]:
        return ()
