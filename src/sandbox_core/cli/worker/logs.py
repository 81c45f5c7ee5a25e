"""The worker's log on stderr, as text or as one JSON object a line."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone

# What Temporal's loggers add to a record: the workflow or the activity that logs.
_CONTEXTS = ("temporal_workflow", "temporal_activity")


class JsonFormatter(logging.Formatter):
    """Formats a record as an object with ``time``, ``level``, ``logger`` and ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        line.update({name: vars(record)[name] for name in _CONTEXTS if name in vars(record)})
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up_logging(*, as_json: bool) -> None:
    """Log from INFO on, to stderr, in place of what was set up before."""
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
