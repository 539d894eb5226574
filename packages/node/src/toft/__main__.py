"""The `toft` command; answers `--version` before anything heavy is imported."""

import io
import os
import sys

from toft import __version__


def main() -> None:
    """Run the command line."""
    _fill_standard_descriptors()
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"toft {__version__}\n")
        return
    from toft.cli import app  # noqa: PLC0415 - typer costs a tenth of a second that --version does not pay

    sys.exit(app.main(sys.argv[1:]))


def _fill_standard_descriptors() -> None:
    """Put something behind each of 0 to 2: else the next file that is opened, a database, takes its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Results that nobody takes are an error: writing to this one fails. Notes are not.
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    sys.stdout = sys.stdout or io.TextIOWrapper(io.FileIO(1, "w", closefd=False))
    sys.stderr = sys.stderr or io.TextIOWrapper(io.FileIO(2, "w", closefd=False))


if __name__ == "__main__":
    main()
