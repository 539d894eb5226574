import toft
import toft_sdk


def test_both_distributions_carry_one_version() -> None:
    assert toft.__version__ == toft_sdk.__version__
