"""How the coordinator's commands log: lines for people, or one JSON object a line.

    {"time": "2026-11-29T12:00:31.123Z", "level": "warning", "event": "agent_fault",
     "message": "agent host-1a2b/gpu3 ...", "fields": {"node": "host-1a2b", "device": "gpu3", ...}}

All of it goes to stderr; results go to standard output. What has a name of its own as an event is
said with `extra=event(...)`, everything else is an event `log`. docs/watching.md lists the events.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Final

from gemmcast.errors import InputError
from gemmcast.program import BAD_INPUT, INTERRUPTED, json_line

TEXT, JSON = "text", "json"
OWN: Final = ("coordinator", "agent", "costmodel", "registry", "gemmcast")
"""Loggers whose events of level info are written, too."""

log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields: dict[str, object] = {"logger": record.name, **getattr(record, "fields", {})}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json_line(
            {
                "time": time.replace("+00:00", "Z"),
                "level": record.levelname.lower(),
                "event": getattr(record, "event", "log"),
                "message": record.getMessage(),
                "fields": fields,
            }
        )


def log_as(name: str | None) -> None:
    """Log in this format from here on.

    Raises:
        InputError: there is no such format.
    """
    if name not in (None, TEXT, JSON):
        raise InputError("--log-format", name, "unknown format", "give text or json")
    if name != JSON:
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for package in OWN:
        logging.getLogger(package).setLevel(logging.INFO)


def is_json() -> bool:
    """Whether this process logs JSON."""
    handlers = logging.getLogger().handlers
    return any(isinstance(handler.formatter, JsonFormatter) for handler in handlers)


def event(name: str, /, **fields: object) -> dict[str, object]:
    """`extra` of a call of a logger: the record is this event, with these fields."""
    return {"event": name, "fields": fields}


def say_end(line: str, code: int) -> None:
    """The last line of a command that did not succeed, on stderr."""
    if not is_json():
        print(line, file=sys.stderr, flush=True)
        return
    level = logging.WARNING if code == INTERRUPTED else logging.ERROR
    name = {INTERRUPTED: "interrupted", BAD_INPUT: "bad_input"}.get(code, "failed")
    log.log(level, line.removeprefix("error: "), extra=event(name, exit_code=code))
