"""A lock without a bot: cron starts this on every server at the same time, and the report is written once.

One takes the lock and writes. The others wait for it, find the report there and end; if the writer's server dies, the
next of them writes. `python lock_without_bot.py reports.sqlite 2025-06-30`
"""

import asyncio
import logging
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from cluster_lock import ClusterLockError, load_settings, open_session

COLLECTING = float(os.environ.get("REPORT_COLLECTING", "2"))  # seconds

# No lock can stop a writer that was paused with its whole virtual machine, and goes on when the lock is another one's
# by then. The database can: it remembers the largest fencing token it has seen, and refuses a smaller one.
SCHEMA = """
CREATE TABLE IF NOT EXISTS fence (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), token INTEGER NOT NULL);
INSERT OR IGNORE INTO fence VALUES (1, 0);
CREATE TRIGGER IF NOT EXISTS smaller_token_is_refused BEFORE UPDATE ON fence WHEN new.token < old.token
    BEGIN SELECT RAISE(ABORT, 'a writer with a larger fencing token was here'); END;
CREATE TABLE IF NOT EXISTS report (day TEXT PRIMARY KEY, text TEXT NOT NULL, token INTEGER NOT NULL);
"""


def open_database(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=5)
    database.executescript(SCHEMA)
    return database


def is_written(database: sqlite3.Connection, day: str, token: int) -> bool:
    """From here on nobody with a smaller token writes, so the answer stays true. Raises sqlite3.IntegrityError if ours
    is a smaller one."""
    with database:
        database.execute("UPDATE fence SET token = ?", (token,))
        return database.execute("SELECT 1 FROM report WHERE day = ?", (day,)).fetchone() is not None


def write(database: sqlite3.Connection, day: str, text: str, token: int) -> None:
    """Token and report in one transaction. Raises sqlite3.IntegrityError if somebody with a larger token was here."""
    with database:
        database.execute("UPDATE fence SET token = ?", (token,))
        database.execute("INSERT INTO report VALUES (?, ?, ?)", (day, text, token))


async def collect(day: str) -> str:
    await asyncio.sleep(COLLECTING)  # stands for the real work, which may take hours
    return f"All is well on {day}"


async def report(path: Path, day: str) -> None:
    # The settings are those of ./config.yaml, or the defaults. The block is cancelled, and LockLost raised from it, as
    # soon as the lock cannot be proved to be held.
    async with open_session(load_settings()) as session, session.lock("reports/nightly").hold() as hold:
        print(f"token {hold.fencing_token}, the lock was {hold.origin}", flush=True)
        with closing(open_database(path)) as database:
            if is_written(database, day, hold.fencing_token):
                print("somebody else has written it")
                return
            write(database, day, await collect(day), hold.fencing_token)
            print("written")


async def main(path: Path, day: str) -> None:
    logging.basicConfig(level=logging.INFO)
    work = asyncio.create_task(report(path, day))
    if sys.platform != "win32":
        # End the work and release the lock, as Ctrl-C does by itself.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    await work


if __name__ == "__main__":
    try:
        asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
    except asyncio.CancelledError:
        sys.exit("stopped")
    except ClusterLockError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
