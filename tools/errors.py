"""The one exception for what a user can fix."""


class UserError(ValueError):
    """Said to the user as one line: what was expected, what was got, the way out. All else is a bug."""


def one_line(error: BaseException) -> str:
    """Return an error's text without line breaks."""
    return " ".join(str(error).split())
