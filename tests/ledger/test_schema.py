"""The account database: every SQL file fits the schema, no frequent one scans, and guards work without the service."""

import asyncio
import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from fundledger.database.migrations import SchemaFault, migrations
from fundledger.database.statements import load
from fundledger.ledger.model.batch import Resplit
from fundledger.ledger.store.accounts import Layout
from fundledger.ledger.store.migrate import PACKAGE, migrate
from fundledger.reconciliation.checks import GUARDS
from fundledger.security.keys import FileKeys
from tests.support.database import Databases
from tests.support.ledger import Ledger, codes, new_id, transfer
from tests.support.plans import plan_of, scanned
from tests.support.waiting import eventually

STATEMENTS = {
    f"{package}/{name}": statement
    for package in ("ledger", "reconciliation")
    for name, statement in load(f"fundledger.{package}").items()
}
UTILITY = ("SET", "CREATE TABLE")


def test_there_are_statements_to_look_at() -> None:
    assert len(STATEMENTS) > 30


@pytest.mark.parametrize("name", STATEMENTS)
async def test_every_statement_can_be_prepared_on_the_migrated_schema(ledger: Ledger, name: str) -> None:
    statement = STATEMENTS[name]
    if without_comments(statement).startswith(UTILITY):
        async with ledger.connection.transaction():
            await ledger.connection.execute(statement)
    else:
        await ledger.connection.prepare(statement)


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_says_what_it_does_and_is_one(name: str) -> None:
    statement = STATEMENTS[name]
    assert statement.startswith("-- ")
    body = without_comments(statement).rstrip()
    assert ";" not in body.rstrip(";") or body.startswith(UTILITY)


def without_comments(statement: str) -> str:
    return "\n".join(line for line in statement.splitlines() if not line.lstrip().startswith("--")).strip()


# --- Plans ----------------------------------------------------------------------------------------------------------

ROWS = 20_000


@pytest.fixture(scope="module")
async def filled(postgres: Databases, keys: FileKeys) -> AsyncIterator[Ledger]:
    """Return a ledger with about 20,000 rows in each table, and with statistics."""
    layout = Layout(shards=2, platform_slots=2)
    async with postgres.a_database(layout) as dsn:
        ledger = await Ledger(dsn, keys, layout).start()
        await ledger.connection.execute(
            f"""
            INSERT INTO ledger.accounts (number, id, owner, type, currency, shard, slots, created_at, mac, key_version)
            OVERRIDING SYSTEM VALUE
            SELECT n, 'm:' || n, 'o:' || n, 'merchant_available', 'CNY', n % 2, 1, now(), '', 1
            FROM generate_series(1, {ROWS}) n;
            INSERT INTO ledger.sub_accounts (shard, account_number, slot, posted, held, version, seq, posted_at_us, normal,
                                             bounded, status, key_version, last_entry_mac, mac)
            SELECT n % 2, n, 0, n, 0, 1, 1, 0, 1, true, 0, 1, '', '' FROM generate_series(1, {ROWS}) n;
            INSERT INTO ledger.vouchers (shard, id, module, type, digest, lines, reverses, batch, accounting_date, posted_at,
                                         key_version, mac)
            SELECT n % 2, lpad(to_hex(n), 32, '0')::uuid, 'dev', 'pay', '', ARRAY[n, 1, n + 1, -1],
                   CASE WHEN n % 100 = 0 THEN lpad(to_hex(n - 1), 32, '0')::uuid END, n / 50, current_date, now(), 1, ''
            FROM generate_series(1, {ROWS}) n;
            INSERT INTO ledger.entries (shard, account_number, slot, seq, voucher_id, amount, balance_after,
                                        accounting_date, posted_at, key_version, mac)
            SELECT n % 2, 1 + n % 200, 0, 1 + n / 200, lpad(to_hex(n), 32, '0')::uuid, 1, 1, current_date, now(), 1, ''
            FROM generate_series(1, {ROWS}) n;
            INSERT INTO ledger.holds (shard, id, module, account_number, slot, amount, captured, status, digest, created_at,
                                      expires_at, key_version, mac)
            SELECT n % 2, 'h:' || n, 'dev', 1 + n % 200, 0, 1, 0, CASE WHEN n % 50 = 0 THEN 0 ELSE 2 END, '', now(),
                   now() + n * interval '1 s', 1, ''
            FROM generate_series(1, {ROWS}) n;
            INSERT INTO ledger.hot_accounts (account_number, state, since, utilisation)
            SELECT n, 'hot', now(), 1 FROM generate_series(1, {ROWS}) n;
            INSERT INTO ledger.line_counts (account_number, slot, seq, extra)
            SELECT 1 + n % 200, 0, 1 + n / 200, 0 FROM generate_series(1, {ROWS}) n;
            INSERT INTO ledger.buffered_entries (account_number, batch, number, of, voucher_id, amount, accounting_date,
                                                 posted_at, key_version, mac)
            SELECT 1 + n % 200, n / 200, 1, 1, gen_random_uuid(), 1, current_date, now(), 1, ''
            FROM generate_series(1, {ROWS}) n;
            ANALYZE;
            """
        )
        yield ledger
        await ledger.close()


HOT = [
    "lock_sub_accounts",
    "read_sub_accounts",
    "write_batch",
    "read_vouchers",
    "read_reversals",
    "read_holds",
    "place_hold",
    "end_hold",
    "expired_holds",
    "accounts_by_id",
    "accounts_by_number",
    "list_accounts",
    "list_accounts_of_owner",
    "open_accounts",
    "read_balances",
    "read_buffered",
    "write_buffered",
    "delete_drained",
    "read_statement",
    "line_counts_at",
    "seqs_at",
    "entries_around",
    "holds_at",
]


LANES_ONLY = (
    "lock_sub_accounts",
    "read_sub_accounts",
    "write_batch",
    "read_buffered",
    "write_buffered",
    "delete_drained",
)
PLANS = [(name, like_a_lane) for name in HOT for like_a_lane in (True, False) if like_a_lane or name not in LANES_ONLY]


@pytest.mark.parametrize(("name", "like_a_lane"), PLANS)
async def test_no_hot_statement_reads_a_table_from_end_to_end(filled: Ledger, name: str, like_a_lane: bool) -> None:
    plan = await plan_of(filled.connection, STATEMENTS[f"ledger/{name}"], like_a_lane=like_a_lane)
    assert scanned(plan) == []


async def test_a_plan_without_its_index_is_caught(filled: Ledger) -> None:
    """The test of plans has to fail if an index is missing."""
    transaction = filled.connection.transaction()
    await transaction.start()
    try:
        await filled.connection.execute("ALTER TABLE ledger.holds DROP CONSTRAINT holds_id_once")
        plan = await plan_of(filled.connection, STATEMENTS["ledger/read_holds"], like_a_lane=True)
        assert scanned(plan) == ["holds"]
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("name", ["lock_sub_accounts", "write_batch", "read_buffered", "delete_drained"])
async def test_a_lane_does_not_scan_tables_that_were_never_analysed(ledger: Ledger, name: str) -> None:
    """A new ledger has no statistics, and a lane keeps the plans of its queries while the tables grow."""
    plan = await plan_of(ledger.connection, STATEMENTS[f"ledger/{name}"], like_a_lane=True)
    assert scanned(plan) == []


async def test_deep_pages_read_as_few_rows_as_the_first(filled: Ledger) -> None:
    """The test counts the rows that the index returns. It does not measure time."""
    connection = filled.connection

    async def rows_read(after: int) -> int:
        plan = await connection.fetchval(
            "EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF, BUFFERS OFF) "
            + STATEMENTS["ledger/read_statement"]
            .replace("$1", "2")
            .replace("$2::integer[]", "'{1}'::integer[]")
            .replace("$3::integer[]", "'{0}'::integer[]")
            .replace("$4::bigint[]", f"'{{{after}}}'::bigint[]")
            .replace("$5::bigint[]", "'{9223372036854775807}'::bigint[]")
            .replace("$6", "10")
        )

        def entries(node: dict) -> int:
            own = node["Actual Rows"] * node["Actual Loops"] if node.get("Relation Name") == "entries" else 0
            return own + sum(entries(child) for child in node.get("Plans", ()))

        return entries(json.loads(plan)[0]["Plan"])

    assert await rows_read(0) == await rows_read(80) == 10


# --- Guards ---------------------------------------------------------------------------------------------------------

APPEND_ONLY = ("vouchers", "entries", "account_events", "integrity_findings", "route_events", "outbox", "line_counts")
CHANGES: dict[str, str] = {
    "UPDATE": "UPDATE ledger.{0} SET {1} = {1}",
    "DELETE": "DELETE FROM ledger.{0}",
    "TRUNCATE": "TRUNCATE ledger.{0}",
    "TRUNCATE of all": "TRUNCATE ledger.vouchers, ledger.entries, ledger.account_events, ledger.integrity_findings CASCADE",
}


@pytest.fixture
async def used(ledger: Ledger) -> Ledger:
    """Return a ledger with a row in every table."""
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await ledger.post(transfer(a, b, 1))
    bank = await ledger.account("bank", "bank")
    await ledger.post(transfer(bank, a, 1), transfer(bank, a, 1))
    await ledger.post(Resplit(await ledger.account("m:3"), 2, "a test", "tests"))
    await ledger.connection.execute("INSERT INTO ledger.heat (worker, hottest) VALUES ('w', '{}')")
    await ledger.connection.execute(
        "INSERT INTO ledger.hot_accounts (account_number, state, since, utilisation) VALUES (1, 'hot', now(), 1)"
    )
    await ledger.hold("h", a, 1)
    await ledger.freeze(b)
    await ledger.connection.execute(
        """INSERT INTO ledger.integrity_findings (shard, account_number, slot, evidence, kind, subject, seq)
           VALUES (0, 1, 0, '{}', 'voucher', 'dev 1', 1)"""
    )
    return ledger


@pytest.mark.parametrize("role", ["origin", "replica"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("table", APPEND_ONLY)
async def test_what_was_written_is_never_changed(used: Ledger, table: str, change: str, role: str) -> None:
    column = {"account_events": "reason", "route_events": "reason", "line_counts": "extra"}.get(table, "shard")
    before = await used.count(table)
    await used.connection.execute(f"SET session_replication_role = {role}")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await used.connection.execute(CHANGES[change].format(table, column))
    assert await used.count(table) == before >= 1


BUFFERED = """INSERT INTO ledger.buffered_entries VALUES (1, 1, {number}, 2, gen_random_uuid(), {amount},
              current_date, now(), 1, '')"""
BITES: dict[str, tuple[str, type[Exception]]] = {
    "key_fingerprints_pkey": (
        "INSERT INTO ledger.key_fingerprints (version, fingerprint) VALUES (1, ''), (1, '')",
        asyncpg.UniqueViolationError,
    ),
    "settings_one_row": (
        "INSERT INTO ledger.settings (shards, platform_slots) VALUES (1, 1)",
        asyncpg.UniqueViolationError,
    ),
    "settings_shards": ("UPDATE ledger.settings SET shards = 0", asyncpg.CheckViolationError),
    "settings_platform_slots": ("UPDATE ledger.settings SET platform_slots = 65", asyncpg.CheckViolationError),
    "accounts_id_once": ("UPDATE ledger.accounts SET id = 'm:1'", asyncpg.UniqueViolationError),
    "accounts_number_once": (
        """INSERT INTO ledger.accounts OVERRIDING SYSTEM VALUE
           SELECT number, 'other', owner, type, currency, shard, slots, metadata, created_at, mac, key_version
           FROM ledger.accounts WHERE id = 'm:1'""",
        asyncpg.UniqueViolationError,
    ),
    "accounts_slots": ("UPDATE ledger.accounts SET slots = 0", asyncpg.CheckViolationError),
    "sub_accounts_pkey": (
        "INSERT INTO ledger.sub_accounts SELECT * FROM ledger.sub_accounts LIMIT 1",
        asyncpg.UniqueViolationError,
    ),
    "sub_accounts_normal": ("UPDATE ledger.sub_accounts SET normal = 0, bounded = false", asyncpg.CheckViolationError),
    "sub_accounts_held": ("UPDATE ledger.sub_accounts SET held = -1", asyncpg.CheckViolationError),
    "sub_accounts_floor": (
        "UPDATE ledger.sub_accounts SET posted = held - 1 WHERE bounded AND normal = 1",
        asyncpg.CheckViolationError,
    ),
    "buffered_entries_amount": (BUFFERED.format(number=1, amount=0), asyncpg.CheckViolationError),
    "buffered_entries_number": (BUFFERED.format(number=3, amount=1), asyncpg.CheckViolationError),
    "buffered_entries_pkey": (
        BUFFERED.format(number=1, amount=1) + ";" + BUFFERED.format(number=1, amount=1),
        asyncpg.UniqueViolationError,
    ),
    "entries_vouchers": (
        """INSERT INTO ledger.entries SELECT shard, account_number, slot, seq + 1000, NULL, amount, balance_after,
           accounting_date, posted_at, key_version, mac FROM ledger.entries LIMIT 1""",
        asyncpg.CheckViolationError,
    ),
    **{
        "entries_vouchers" + " " * (1 + n): (
            f"""INSERT INTO ledger.entries (shard, account_number, slot, seq, voucher_id, vouchers, amount, balance_after,
                accounting_date, posted_at, key_version, mac) SELECT shard, account_number, slot, seq + 1000, {ids}, amount,
                balance_after, accounting_date, posted_at, key_version, mac FROM ledger.entries LIMIT 1""",
            asyncpg.CheckViolationError,
        )
        for n, ids in enumerate(
            (
                "id, ARRAY[id]".replace("id", "gen_random_uuid()"),
                "NULL, '{}'",
                "NULL, ARRAY[NULL::uuid]",
                "NULL, ARRAY[gen_random_uuid(), NULL]",
                "NULL, ARRAY[ARRAY[gen_random_uuid()]]",
            )
        )
    },
    "sub_accounts_slots": ("UPDATE ledger.sub_accounts SET slots = 0", asyncpg.CheckViolationError),
    "routes_pkey": ("INSERT INTO ledger.routes SELECT * FROM ledger.routes LIMIT 1", asyncpg.UniqueViolationError),
    "routes_slots": ("UPDATE ledger.routes SET slots = 257", asyncpg.CheckViolationError),
    "route_events_pkey": (
        "INSERT INTO ledger.route_events OVERRIDING SYSTEM VALUE SELECT * FROM ledger.route_events LIMIT 1",
        asyncpg.UniqueViolationError,
    ),
    "line_counts_pkey": (
        "INSERT INTO ledger.line_counts SELECT * FROM ledger.line_counts LIMIT 1",
        asyncpg.UniqueViolationError,
    ),
    "outbox_pkey": ("INSERT INTO ledger.outbox SELECT * FROM ledger.outbox LIMIT 1", asyncpg.UniqueViolationError),
    "outbox_vouchers": (
        "INSERT INTO ledger.outbox (shard, batch, vouchers, at) VALUES (0, 1, '{}', now())",
        asyncpg.CheckViolationError,
    ),
    **{
        "outbox_vouchers" + " " * (1 + n): (
            f"INSERT INTO ledger.outbox (shard, batch, vouchers, at) VALUES (0, 1, {ids}, now())",
            asyncpg.CheckViolationError,
        )
        for n, ids in enumerate(
            (
                "ARRAY[NULL::uuid]",
                "ARRAY[gen_random_uuid(), NULL]",
                "ARRAY[ARRAY[gen_random_uuid()]]",
                "array_fill(gen_random_uuid(), ARRAY[16384])",
            )
        )
    },
    **{
        "outbox_modules" + " " * n: (
            f"""INSERT INTO ledger.outbox (shard, batch, vouchers, modules, at)
               VALUES (0, 1, ARRAY[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()], {modules}, now())""",
            asyncpg.CheckViolationError,
        )
        for n, modules in enumerate(("'{a,b}'", "'{a,b,NULL}'", "'{NULL}'", "'{{a,b,c}}'", "'{}'"))
    },
    "chains_pkey": ("INSERT INTO ledger.chains SELECT * FROM ledger.chains LIMIT 1", asyncpg.UniqueViolationError),
    "chains_name": ("INSERT INTO ledger.chains (name) VALUES ('other')", asyncpg.CheckViolationError),
    "account_events_seq_once": (
        """INSERT INTO ledger.account_events (account_number, status, reason, module, seq)
           SELECT account_number, status, reason, module, seq FROM ledger.account_events LIMIT 1""",
        asyncpg.UniqueViolationError,
    ),
    "integrity_findings_seq_once": (
        """INSERT INTO ledger.integrity_findings (evidence, kind, seq)
           SELECT evidence, kind, seq FROM ledger.integrity_findings LIMIT 1""",
        asyncpg.UniqueViolationError,
    ),
    "integrity_findings_subject_once": (
        """INSERT INTO ledger.integrity_findings (evidence, kind, subject)
           SELECT evidence, kind, subject FROM ledger.integrity_findings LIMIT 1""",
        asyncpg.UniqueViolationError,
    ),
    "heat_pkey": ("INSERT INTO ledger.heat SELECT * FROM ledger.heat", asyncpg.UniqueViolationError),
    "hot_accounts_pkey": (
        "INSERT INTO ledger.hot_accounts SELECT * FROM ledger.hot_accounts",
        asyncpg.UniqueViolationError,
    ),
    "hot_accounts_state": ("UPDATE ledger.hot_accounts SET state = 'cold'", asyncpg.CheckViolationError),
    "vouchers_id_once": (
        "INSERT INTO ledger.vouchers SELECT * FROM ledger.vouchers LIMIT 1",
        asyncpg.UniqueViolationError,
    ),
    "vouchers_sum_to_zero": ("{voucher} ARRAY[1, -5, 2, 6]", asyncpg.CheckViolationError),
    "vouchers_sum_to_zero ": ("{voucher} ARRAY[1, -5, 2, 3, 3, 3]", asyncpg.CheckViolationError),
    **{
        "vouchers_sum_to_zero" + " " * (2 + n): ("{voucher} " + lines, asyncpg.CheckViolationError)
        for n, lines in enumerate(
            (
                "'{{}}'",
                "'{{1}}'",
                "ARRAY[1, 0]",
                "ARRAY[1, -5, 2]",
                "ARRAY[1, -5, 2, 5, 3]",
                "ARRAY[1, -5, 2, 5, 3, 0, 4, 0, 5]",
                "ARRAY[1, NULL, 2, 5]",
                "ARRAY[1, -5, 2, NULL]",
                "ARRAY[NULL, -5, 2, 5]",
                "ARRAY[1, -5, NULL, 5]",
                "ARRAY[NULL, -5, 2, 3, 3, 2]",
                "ARRAY[1, -5, NULL, 3, 3, 2]",
                "ARRAY[1, -5, 2, 3, NULL, 2]",
                "ARRAY[1, -5, 2, NULL, 3, 5]",
                "ARRAY[NULL, -5, 2, 3, 3, 1, 4, 1]",
                "ARRAY[1, -5, NULL, 3, 3, 1, 4, 1]",
                "ARRAY[1, -5, 2, 3, NULL, 1, 4, 1]",
                "ARRAY[1, -5, 2, 3, 3, 1, NULL, 1]",
                "ARRAY[1, -5, 2, 3, 3, 1, 4, 2]",
                "ARRAY[1, -5, 2, 3, 3, 1, 4, NULL]",
                "ARRAY[1, -5, 2, 2, 3, 1, 4, 1, NULL, 1]",
                "'[0:9]={{1,2,0,3,0,4,0,5,0,6}}'",
                "'{{{{1,-5}},{{2,5}},{{3,0}},{{4,0}},{{5,0}}}}'",
                "ARRAY[1, -5, 2, 4, 3, 1, 4, NULL, 5, 0]",
                "ARRAY[1, -5, 2, 2, 3, 1, 4, 1, 5, 2]",
                "'[0:3]={{1,-5,2,5}}'",
                "'[2:5]={{1,-5,2,5}}'",
                "'[0:9]={{1,0,2,0,3,0,4,0,5,0}}'",
                "ARRAY[ARRAY[1, -5], ARRAY[2, 5]]",
                "ARRAY[ARRAY[1, 0], ARRAY[2, 0], ARRAY[3, 0], ARRAY[4, 0], ARRAY[5, 0]]",
            )
        )
    },
    "vouchers_reversed_once": ("{voucher} ARRAY[1, -5, 2, 5]", asyncpg.UniqueViolationError),
    "entries_pkey": ("INSERT INTO ledger.entries SELECT * FROM ledger.entries LIMIT 1", asyncpg.UniqueViolationError),
    "holds_id_once": ("INSERT INTO ledger.holds SELECT * FROM ledger.holds LIMIT 1", asyncpg.UniqueViolationError),
    "holds_amount": ("UPDATE ledger.holds SET amount = 0, captured = 0", asyncpg.CheckViolationError),
    "holds_captured": ("UPDATE ledger.holds SET captured = amount + 1", asyncpg.CheckViolationError),
    "account_events_pkey": (
        "INSERT INTO ledger.account_events OVERRIDING SYSTEM VALUE SELECT * FROM ledger.account_events LIMIT 1",
        asyncpg.UniqueViolationError,
    ),
    "integrity_findings_pkey": (
        "INSERT INTO ledger.integrity_findings OVERRIDING SYSTEM VALUE SELECT * FROM ledger.integrity_findings LIMIT 1",
        asyncpg.UniqueViolationError,
    ),
}


@pytest.mark.parametrize("name", BITES)
async def test_each_constraint_bites(used: Ledger, name: str) -> None:
    statement, error = BITES[name]
    reversed_id = new_id()
    insert = (
        "INSERT INTO ledger.vouchers (shard, id, module, type, digest, reverses, batch, accounting_date, posted_at, key_version,"
        f" mac, lines) SELECT 0, gen_random_uuid(), 'dev', 'pay', '', '{reversed_id}', 1, current_date, now(), 1, '',"
    )
    if name == "vouchers_reversed_once":
        await used.connection.execute(statement.format(voucher=insert))
    with pytest.raises(error) as caught:
        await used.connection.execute(statement.format(voucher=insert) if "{voucher}" in statement else statement)
    assert caught.value.constraint_name == name.strip()


@pytest.mark.parametrize(
    "change", ["UPDATE ledger.buffered_entries SET amount = 2", "TRUNCATE ledger.buffered_entries"]
)
async def test_what_waits_in_the_buffer_is_never_changed(used: Ledger, change: str) -> None:
    await used.connection.execute(BUFFERED.format(number=1, amount=1))
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await used.connection.execute(change)
    assert await used.count("buffered_entries") == 1


async def test_every_named_constraint_is_tried(ledger: Ledger) -> None:
    rows = await ledger.connection.fetch(
        """
        SELECT c.conname::text AS name FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
        WHERE n.nspname = 'ledger' AND c.contype IN ('c', 'p', 'u')
        UNION SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
        JOIN pg_namespace n ON n.oid = t.relnamespace WHERE n.nspname = 'ledger' AND i.indisunique
        """
    )
    found = {row["name"].rpartition(".")[2] for row in rows}
    # This constraint has a name that Postgres chose: the column `one` can only be true.
    assert found - {name.strip() for name in BITES} <= {"settings_one_check"}


async def test_the_head_of_a_chain_of_evidence_is_kept(ledger: Ledger) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await ledger.connection.execute("DELETE FROM ledger.chains")


async def test_every_guard_that_verify_asks_for_is_tried_here() -> None:
    tried = (
        {name.strip() for name in BITES}
        | {f"{t}_append_only" for t in APPEND_ONLY}
        | {f"{t}_no_truncate" for t in APPEND_ONLY}
        | {"buffered_entries_no_change", "buffered_entries_no_truncate", "chains_kept"}
    )
    assert tried >= GUARDS


async def test_updates_of_balances_stay_on_their_page(ledger: Ledger) -> None:
    """If only a balance changes, no index entry is written (HOT updates of Postgres)."""
    a, b = await ledger.account("m:1", balance=1000), await ledger.account("m:2", balance=1000)
    for _ in range(100):
        assert codes(await ledger.post(transfer(a, b, 1), transfer(b, a, 1))) == ["posted"] * 2
    for connection in (ledger.session._locking, ledger.session._unlocked):
        if connection is not None:
            await connection.execute("SELECT pg_stat_force_next_flush()")
    await ledger.session.close()
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'sub_accounts'"

    async def updates() -> tuple[int, int]:
        return tuple(await ledger.connection.fetchrow(query))

    async def counted() -> bool:
        return (await updates())[0] >= 200

    await eventually(counted, "the statistics have arrived")
    total, hot = await updates()
    assert hot > 0.9 * total


# --- Migrations -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def empty(postgres: Databases) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    dsn = await postgres.empty()
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()
    await postgres.drop(dsn)


async def test_migrations_are_applied_once(empty: "asyncpg.Connection[asyncpg.Record]") -> None:
    layout = Layout(3, 4)
    assert (await migrate(empty, layout))[1] == [name for _, name, _ in migrations(PACKAGE)]
    assert await migrate(empty, layout) == (layout, [])


async def test_the_layout_of_a_ledger_stays_what_it_was(empty: "asyncpg.Connection[asyncpg.Record]") -> None:
    await migrate(empty, Layout(3, 4))
    found, _ = await migrate(empty, Layout(5, 6))
    assert found == Layout(3, 4)


async def test_a_migration_that_was_changed_after_it_was_applied_is_refused(
    empty: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await migrate(empty, Layout(1, 1))
    await empty.execute("UPDATE public.fundledger_migrations SET sha256 = 'x'")
    with pytest.raises(SchemaFault, match="changed"):
        await migrate(empty, Layout(1, 1))


async def test_a_database_of_a_newer_version_is_refused(empty: "asyncpg.Connection[asyncpg.Record]") -> None:
    await migrate(empty, Layout(1, 1))
    await empty.execute("INSERT INTO public.fundledger_migrations (number, name, sha256) VALUES (9999, 'later', 'x')")
    with pytest.raises(SchemaFault, match="9999"):
        await migrate(empty, Layout(1, 1))


async def test_two_concurrent_migrators_apply_everything_once(postgres: Databases) -> None:
    dsn = await postgres.empty()
    connections = [await asyncpg.connect(dsn) for _ in range(4)]
    try:
        done = await asyncio.gather(*(migrate(connection, Layout(1, 1)) for connection in connections))
        assert sorted(len(names) for _, names in done) == [0, 0, 0, len(migrations(PACKAGE))]
    finally:
        for connection in connections:
            await connection.close()
        await postgres.drop(dsn)


async def test_a_migration_that_fails_leaves_nothing_behind(
    empty: "asyncpg.Connection[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(package: str) -> list[tuple[int, str, str]]:
        return [*migrations_before(package), (9998, "broken", "SELECT 1/0")]

    monkeypatch.setattr("fundledger.database.migrations.migrations", broken)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty, Layout(1, 1))
    assert await empty.fetchval("SELECT to_regnamespace('ledger')") is None
    assert await empty.fetchval("SELECT to_regclass('public.fundledger_migrations')") is None


migrations_before = migrations


async def test_a_page_of_events_reads_no_more_rows_than_it_needs(ledger: Ledger) -> None:
    """A reader that is far behind asks for all rows up to the watermark, a page at a time."""
    await ledger.connection.execute(
        "INSERT INTO ledger.outbox (shard, batch, seq, at, vouchers)"
        " SELECT 0, n, n, now(), ARRAY[gen_random_uuid(), gen_random_uuid()] FROM generate_series(1, 20000) AS n"
    )
    statement = load("fundledger.app.account")["read_outbox"]
    plan = await ledger.connection.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", 1, 20_000, 0, 100, 5000
    )
    found = json.loads(plan)[0]["Plan"]
    assert found["Actual Rows"] == 100
    assert found["Shared Hit Blocks"] + found["Shared Read Blocks"] < 200
