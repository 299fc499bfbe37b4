"""`cluster-lock init-db`: make the schema of the backend postgres before the first instance would."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from cluster_lock.errors import ConfigError

from .options import add_settings_options, settings_from
from .output import run

if TYPE_CHECKING:
    from cluster_lock.config import Settings

GRANTS = """
-- What an instance needs that comes as another role, here `bot`:
-- GRANT USAGE ON SCHEMA cluster_lock TO bot;
-- GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cluster_lock TO bot;
-- GRANT USAGE ON SEQUENCE cluster_lock.token TO bot;"""


def add(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "init-db",
        help="make the schema of the backend postgres",
        description="Make the schema cluster_lock in the database that the settings name, as the role that they name."
        " An instance makes it itself where it may; this is for databases in which it may not.",
        examples=("--backend postgres", "--print | psql locks"),
    )
    parser.add_argument("--print", action="store_true", help="print the SQL instead")
    add_settings_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from cluster_lock.drivers.postgres import ddl

    if arguments.print:
        print(f"BEGIN;\n\n{ddl()}{GRANTS}\n\nCOMMIT;")
        return 0
    return run(_init(settings_from(arguments)))


async def _init(settings: Settings) -> int:
    from cluster_lock.config import driver_options
    from cluster_lock.drivers.postgres import PostgresDriver

    if settings.backend != "postgres":
        raise ConfigError([f"init-db is for the backend postgres, and the settings say {settings.backend}"])
    driver = PostgresDriver(**driver_options(settings))
    await driver.open()
    try:
        made = await driver.init()
    finally:
        await driver.close()
    print(f"{driver.backend}: the schema cluster_lock {'was made' if made else 'is there already'}")
    if made:
        print(GRANTS.lstrip())
    return 0
