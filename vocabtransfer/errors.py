"""The one family of exceptions a user sees: each message is a sentence that says what is wrong and what to do."""


class VocabTransferError(Exception):
    """The work cannot be done: bad input, missing file, no room on disk. The command line prints it and exits 1."""


class UsageError(VocabTransferError):
    """The request itself makes no sense: unknown language, unknown method, options that exclude each other. Exit 2."""


class UnexpectedError(VocabTransferError):
    """Another library failed in a way that nothing here foresaw; its exception is the cause."""


def first_line(problem: BaseException) -> str:
    """Return the first line of what another library's exception says, to be put into a sentence of ours.

    >>> first_line(RuntimeError("it broke:\\nmore")), first_line(KeyError())
    ('it broke', 'KeyError')
    """
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0].rstrip(".:")
