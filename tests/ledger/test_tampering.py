"""Rows of the ledger that were edited by SQL: the next use is refused, the account is frozen, the row is evidence."""

import json

import pytest

from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Status
from fundledger.ledger.model.batch import AtomicGroup
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.store.directory import AccountTampered, Directory
from fundledger.reconciliation.checks import verify
from tests.support.ledger import (
    Ledger,
    code,
    codes,
    expire,
    posted,
    release,
    transfer,
)

EDITS = {
    "posted": "posted = posted + 1000",
    "held": "held = held + 1",
    "version": "version = version + 1",
    "seq": "seq = seq - 1",
    "posted_at_us": "posted_at_us = posted_at_us - 1",
    "status": "status = 1",
    "last_entry_mac": "last_entry_mac = decode(repeat('00', 32), 'hex')",
    "mac": "mac = decode(repeat('00', 32), 'hex')",
}


@pytest.mark.parametrize("edited", EDITS)
async def test_a_sub_account_that_was_edited_is_refused_frozen_and_kept_as_evidence(
    ledger: Ledger, edited: str
) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2", balance=100)
    c = await ledger.account("m:3")
    old = dict(
        await ledger.connection.fetchrow("SELECT * FROM ledger.sub_accounts WHERE account_number = $1", a.number)
    )
    await ledger.tamper(f"UPDATE ledger.sub_accounts SET {EDITS[edited]} WHERE account_number = $1", a.number)
    found = await ledger.connection.fetchrow("SELECT * FROM ledger.sub_accounts WHERE account_number = $1", a.number)
    outcomes = await ledger.post(transfer(b, c, 1), transfer(a, c, 1), transfer(b, a, 1), transfer(b, c, 1))
    assert codes(outcomes) == ["posted", "account-frozen", "account-frozen", "posted"]
    assert (await ledger.posted(b), await ledger.posted(c)) == (98, 2)
    assert await ledger.status(a) == Status.FROZEN_INTEGRITY
    finding = await ledger.connection.fetchrow("SELECT * FROM ledger.integrity_findings")
    assert (finding["account_number"], finding["slot"]) == (a.number, 0)
    evidence = json.loads(finding["evidence"])
    assert evidence[edited] == (found[edited].hex() if isinstance(found[edited], bytes) else found[edited])
    assert evidence["mac"] == found["mac"].hex()
    # Restoring the old value does not unfreeze the account: the row is frozen now, and the MAC covers its status.
    await ledger.tamper(
        f"UPDATE ledger.sub_accounts SET {edited} = $2 WHERE account_number = $1", a.number, old[edited]
    )
    outcomes = await ledger.post(transfer(a, c, 1), transfer(b, c, 1))
    assert codes(outcomes) == ["account-frozen", "posted"]
    assert code(await ledger.freeze(a, Status.OPEN)) == "account-frozen"
    assert not (await verify(ledger.dsn, ledger.keys)).ok


async def test_a_row_copied_from_another_account_is_refused(ledger: Ledger) -> None:
    rich, poor = await ledger.account("m:1", balance=1000), await ledger.account("m:2", balance=1)
    await ledger.tamper(
        """
        UPDATE ledger.sub_accounts s SET posted = r.posted, held = r.held, version = r.version, seq = r.seq,
            posted_at_us = r.posted_at_us, status = r.status, key_version = r.key_version,
            last_entry_mac = r.last_entry_mac, mac = r.mac
        FROM ledger.sub_accounts r WHERE r.account_number = $1 AND s.account_number = $2
        """,
        rich.number,
        poor.number,
    )
    assert code(await ledger.post_one(transfer(poor, rich, 500))) == "account-frozen"


async def test_a_row_put_back_to_what_it_was_before_its_last_payment_moves_nothing(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    c = await ledger.account("m:3", balance=100)
    old = dict(
        await ledger.connection.fetchrow("SELECT * FROM ledger.sub_accounts WHERE account_number = $1", a.number)
    )
    await ledger.post(transfer(a, b, 100))
    changed = ("posted", "held", "version", "seq", "posted_at_us", "status", "last_entry_mac", "mac")
    assignments = ", ".join(f"{name} = ${i}" for i, name in enumerate(changed, 2))
    await ledger.tamper(
        f"UPDATE ledger.sub_accounts SET {assignments} WHERE account_number = $1", a.number, *(old[n] for n in changed)
    )
    outcomes = await ledger.post(transfer(c, b, 1), transfer(a, b, 100), transfer(c, b, 1))
    assert codes([outcomes[0], outcomes[2]]) == ["posted", "posted"]
    assert not posted(outcomes[1])
    assert await ledger.posted(b) == 102
    report = await verify(ledger.dsn, ledger.keys)
    assert {check.name for check in report.checks if not check.ok} >= {"balance_equals_entries"}


async def test_a_sub_account_that_was_deleted_hurts_no_neighbour(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    c = await ledger.account("m:3", balance=100)
    await ledger.tamper("DELETE FROM ledger.sub_accounts WHERE account_number = $1", a.number)
    outcomes = await ledger.post(transfer(c, b, 1), transfer(a, b, 1), transfer(c, b, 1))
    assert codes([outcomes[0], outcomes[2]]) == ["posted", "posted"]
    assert not posted(outcomes[1])
    assert await ledger.posted(b) == 2


async def test_a_release_does_not_launder_a_row_that_was_edited(ledger: Ledger) -> None:
    a = await ledger.account("m:1", balance=100)
    hold = await ledger.hold("h", a, 10)
    await ledger.tamper("UPDATE ledger.sub_accounts SET posted = posted + 1000 WHERE account_number = $1", a.number)
    assert code(await ledger.post_one(release(hold))) == "account-frozen"
    assert await ledger.status(a) == Status.FROZEN_INTEGRITY
    assert await ledger.count("integrity_findings") == 1


async def test_an_expiry_does_not_launder_a_row_that_was_edited(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await ledger.account("m:1", balance=100)
    hold = await ledger.hold("h", a, 10, expires_at_us=clock.now_us() + 60_000_000)
    await ledger.tamper("UPDATE ledger.sub_accounts SET posted = posted + 1000 WHERE account_number = $1", a.number)
    monkeypatch.setattr(clock, "now_us", lambda: hold.expires_at_us)
    await ledger.post(expire(hold))
    assert await ledger.status(a) == Status.FROZEN_INTEGRITY
    assert await ledger.count("integrity_findings") == 1


@pytest.mark.parametrize("status", [Status.FROZEN_DEBITS, Status.OPEN, Status.CLOSED])
async def test_a_change_of_status_does_not_launder_a_row_that_was_edited(ledger: Ledger, status: Status) -> None:
    a = await ledger.account("m:1", balance=100)
    await ledger.tamper("UPDATE ledger.sub_accounts SET posted = 0 WHERE account_number = $1", a.number)
    assert code(await ledger.freeze(a, status)) == "account-frozen"
    assert await ledger.status(a) == Status.FROZEN_INTEGRITY
    assert await ledger.count("integrity_findings") == 1


@pytest.mark.parametrize("column", ["owner", "type", "currency", "id", "metadata"])
async def test_an_account_whose_record_was_edited_is_refused(ledger: Ledger, column: str) -> None:
    await ledger.account("m:1", balance=100, metadata='{"a":1}')
    value = {"owner": "thief", "type": "bank", "currency": "USD", "id": "m:9", "metadata": '{"a":2}'}[column]
    await ledger.tamper(f"UPDATE ledger.accounts SET {column} = $1 WHERE id = 'm:1'", value)
    with pytest.raises(AccountTampered):
        await Directory(ledger.keys).resolve(ledger.connection, ["m:1", "m:9"])
    report = await verify(ledger.dsn, ledger.keys)
    assert "mac_verifies_accounts" in {check.name for check in report.checks if not check.ok}


async def test_a_replay_that_names_a_tampered_account_hurts_no_neighbour(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    c = await ledger.account("m:3", balance=100)
    old = transfer(a, b, 1)
    await ledger.post(old)
    await ledger.tamper("UPDATE ledger.accounts SET owner = 'thief' WHERE id = 'm:1'")
    outcomes = await ledger.post(transfer(c, b, 1), old, transfer(c, b, 1))
    assert codes(outcomes) == ["posted", "account-frozen", "posted"]


async def test_a_time_that_was_edited_does_not_date_the_payments_of_others(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    c = await ledger.account("m:3", balance=100)
    await ledger.tamper(
        "UPDATE ledger.sub_accounts SET posted_at_us = posted_at_us * 2 WHERE account_number = $1", a.number
    )
    before = clock.now_us()
    outcomes = await ledger.post(transfer(c, b, 1), transfer(a, b, 1), transfer(c, b, 1))
    assert codes(outcomes) == ["posted", "account-frozen", "posted"]
    assert before <= outcomes[0].record.posted_at_us <= clock.now_us()
    again = await ledger.post_one(transfer(c, b, 1))
    assert before <= again.record.posted_at_us <= clock.now_us()


async def test_an_unknown_key_version_hurts_no_neighbour_and_freezes_no_account(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    c = await ledger.account("m:3", balance=100)
    await ledger.tamper("UPDATE ledger.sub_accounts SET key_version = 9 WHERE account_number = $1", a.number)
    outcomes = await ledger.post(transfer(c, b, 1), transfer(a, b, 1), transfer(c, b, 1))
    assert codes(outcomes) == ["posted", "Unavailable", "posted"]
    assert await ledger.status(a) == Status.OPEN
    assert await ledger.count("integrity_findings") == 0


async def test_a_voucher_that_was_edited_is_not_returned_to_a_retry(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    old = transfer(a, b, 1, reference="r")
    await ledger.post(old)
    await ledger.tamper(
        """
        DO $$ BEGIN
            ALTER TABLE ledger.vouchers DISABLE TRIGGER ALL;
            UPDATE ledger.vouchers SET lines[2] = -50, lines[4] = 50 WHERE reference = 'r';
            ALTER TABLE ledger.vouchers ENABLE ALWAYS TRIGGER vouchers_append_only;
        END $$
        """
    )
    outcomes = await ledger.post(transfer(a, b, 1), transfer(a, b, 1, id_=old.id, reference="r"), transfer(a, b, 1))
    assert codes(outcomes) == ["posted", "account-frozen", "posted"]
    assert await ledger.posted(b) == 3
    # An earlier attempt may have been committed (and was), so no outcome is a refusal.
    again = [transfer(a, b, 1, id_=old.id, reference="r")]
    answers = await post_vouchers(ledger.session, ledger.books, again, sent_before=True, locked=True)
    assert codes(answers) == ["OutcomeUnknown"]
    # An atomic group with this voucher is refused as a whole: each of its vouchers has an outcome.
    group = AtomicGroup([transfer(a, b, 1), transfer(a, b, 1, id_=old.id, reference="r")])
    first, refused, last = await ledger.post(transfer(a, b, 1), group, transfer(a, b, 1))
    assert codes([first, *refused.parts, last]) == ["posted", "account-frozen", "account-frozen", "posted"]
    assert await ledger.posted(b) == 5
