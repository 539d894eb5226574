"""The `toft` command; answers `--version` before anything heavy is imported."""

import sys

from toft import __version__


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"toft {__version__}\n")
        return
    from toft.cli import app  # noqa: PLC0415 - typer costs a tenth of a second that --version does not pay

    sys.exit(app.main(sys.argv[1:]))


if __name__ == "__main__":
    main()
