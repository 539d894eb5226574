"""What a package tool sees of the node's environment: an allow-list, for it may run foreign build code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

_NAMES = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "NETRC",
        "SSH_AUTH_SOCK",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "CC",
        "CXX",
        "AR",
        "LD",
        "CFLAGS",
        "CXXFLAGS",
        "CPPFLAGS",
        "LDFLAGS",
        "MAKEFLAGS",
        "PKG_CONFIG_PATH",
        "LD_LIBRARY_PATH",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "CUDA_HOME",
        "MACOSX_DEPLOYMENT_TARGET",
    }
)
_PREFIXES = (
    "LC_",
    "UV_",
    "PIP_",
    "XDG_",
    "CMAKE_",
    "GIT_SSL_",
    "MAMBA_",
    "RATTLER_",
    "PIXI_",
    "CONDA_OVERRIDE_",
)
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy"})
# These would steer uv away from the environment that is being built.
_DENIED = frozenset({"UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_TARGET", "UV_LINK_MODE"})

_BUNDLES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a package tool gets: paths, proxies, its own settings, compilers; no tokens."""
    return {
        name: value
        for name, value in environ.items()
        if name not in _DENIED and (name in _NAMES or name.lower() in _PROXIES or name.startswith(_PREFIXES))
    }


def trusted(bundles: Sequence[Path] = _BUNDLES) -> dict[str, str]:
    """Return what makes uv trust whom the machine trusts, such as a company's own proxy.

    uv brings a list of authorities of its own, which is all there is on a machine without a list.
    """
    return {"UV_SYSTEM_CERTS": "true"} if any(bundle.exists() for bundle in bundles) else {}
