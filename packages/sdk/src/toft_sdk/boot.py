"""The first lines a worker runs: `PYTHON -I .../toft_sdk/boot.py FD`.

Makes `toft_sdk` importable from the directory this file lies in, and nothing else beside it: no directory
joins `sys.path`, so nothing next to the SDK can be imported by accident.
"""

import sys

try:  # Loaded already in every CPython; `importlib.machinery` would be three files more.
    from _frozen_importlib import ModuleSpec
    from _frozen_importlib_external import SourceFileLoader
except ImportError:
    from importlib.machinery import ModuleSpec, SourceFileLoader


def install(directory):  # type: ignore[no-untyped-def]
    path = directory + "/__init__.py"
    loader = SourceFileLoader("toft_sdk", path)
    spec = ModuleSpec("toft_sdk", loader, origin=path, is_package=True)
    spec.submodule_search_locations = [directory]
    spec.has_location = True
    spec.cached = None
    module = type(sys)("toft_sdk")
    module.__spec__ = spec
    module.__path__ = spec.submodule_search_locations
    module.__file__ = path
    module.__loader__ = loader
    sys.modules["toft_sdk"] = module
    loader.exec_module(module)


if __name__ == "__main__":
    install(  # type: ignore[no-untyped-call]
        __file__.rpartition("/")[0]
    )
    from toft_sdk.worker import main

    main(int(sys.argv[1]))
