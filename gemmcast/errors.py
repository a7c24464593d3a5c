"""Every exception that gemmcast raises on purpose.

    GemmcastError
    ├── InputError (also ValueError)    a value from outside breaks a rule; exit code 2
    │   └── ModelFileError              a model file that is damaged, foreign or of another contract
    ├── WorkspaceError                  a workspace is in use or cannot be read; exit code 2
    │   └── UnavailableError            a store or registry that does not answer; worth a retry
    └── MeasurementError                a measurement failed or was refused

Messages of the first three name the field, the value and the way out. A MeasurementError never
leaves the agent: it becomes a row with a status. Commands print `error: MESSAGE` on stderr.
"""

_LONGEST_VALUE = 200


class GemmcastError(Exception):
    """Root of the tree."""


class InputError(GemmcastError, ValueError):
    """A value from outside breaks a rule.

    Args:
        field: what the user calls the value: a field, an option, a column.
        value: the value itself.
        rule: what is wrong with it.
        way_out: what to do instead.
    """

    def __init__(self, field: str, value: object, rule: str, way_out: str = "") -> None:
        shown = repr(value)
        if len(shown) > _LONGEST_VALUE:
            shown = shown[: _LONGEST_VALUE - 3] + "..."
        message = f"{field} = {shown}: {rule}"
        super().__init__(f"{message}; {way_out}" if way_out else message)
        self.field = field
        self.value = value
        self.rule = rule
        self.way_out = way_out

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.field, self.value, self.rule, self.way_out)


class ModelFileError(InputError):
    """A model file that must not be used."""


class WorkspaceError(GemmcastError):
    """A workspace that cannot be used now."""


class UnavailableError(WorkspaceError):
    """A store or registry that does not answer now: it is down, silent, full or read-only."""


class MeasurementError(GemmcastError):
    """One measurement failed.

    Args:
        status: one of gemmcast.sample.STATUSES.
        reason: what happened.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
