"""Every exception that gemmcast raises on purpose.

    GemmcastError
    ├── InputError (also ValueError)    a user's value breaks a rule: the message holds field, value and way out; exit code 2
    │   └── ModelFileError              a model file or directory that is damaged, foreign, or of another contract
    ├── WorkspaceError                  the workspace is in use, or not one of ours; exit code 2
    └── MeasurementError                a measurement that we refuse or that failed; the agent turns it into a row

A failed measurement never leaves the agent as an exception: it is a row with a status.
"""


class GemmcastError(Exception):
    """Root of the tree."""


class InputError(GemmcastError, ValueError):
    """A value from outside that breaks a rule."""

    def __init__(self, field: str, value: object, rule: str, way_out: str = "") -> None:
        shown = repr(value)
        if len(shown) > 200:
            shown = shown[:197] + "..."
        super().__init__(f"{field} = {shown}: {rule}" + (f"; {way_out}" if way_out else ""))
        self.field, self.value, self.rule, self.way_out = field, value, rule, way_out

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.field, self.value, self.rule, self.way_out)


class ModelFileError(InputError):
    """A model file that must not be used."""


class WorkspaceError(GemmcastError):
    """A workspace that cannot be used now."""


class MeasurementError(GemmcastError):
    """One measurement failed; `status` is a sample status, `reason` says what happened."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status, self.reason = status, reason
