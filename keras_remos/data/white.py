"""Which value means white, where images do not say it."""

from keras_remos.errors import DataError

# Values of 14 bits do not pass it: above are 16 bits, up to it they may be of 10, 12 or 14 bits, or dark ones of 16.
_MOST_OF_14_BITS = 2**14 - 1
# Pictures of 0 to 255 that are all so dark are as likely some of another range.
_LEAST_OF_255 = 31
# By what share of white floating-point values may leave its range: resampling does so.
SLACK = 0.01
WAY_OUT = (
    "Save the images with 8 bits a value, or say what black and white are (`pixel_range`): values then "
    "stay as they are."
)


def find_white(least: float, most: float, what: str, *, slack: float = 0.0) -> float:
    """The value that means white, found from those that there are, where a file does not say it.

    No value above 1: 1. The largest from 32 to 255: 255. The largest of more than 14 bits (above 16383) and no more
    than 16: 65535. What lies between cannot be known: 10, 12 or 14 bits, or dark pictures of 16.

    Args:
        least: The smallest value of all the images that were looked at.
        most: The largest.
        what: What to call them in a message.
        slack: By what share of white values may leave its range.

    Returns:
        1, 255 or 65535.

    Raises:
        DataError: If it cannot be known, or values are negative.
    """
    for white, darkest in ((1.0, -1), (255.0, _LEAST_OF_255), (65535.0, _MOST_OF_14_BITS)):
        if darkest < most <= white * (1 + slack) and least >= -white * slack:
            return white
    raise DataError(
        "Expected images of which it is known what is white: with values up to 1, 255 or 65535. Received: "
        f"{what} with values from {least:g} to {most:g}, from which it cannot be told. {WAY_OUT}"
    )
