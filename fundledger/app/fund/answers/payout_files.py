"""Answers of the fund service about payout files and their results: their types, and the conversion of rows."""

from typing import Annotated, get_args

import msgspec
from msgspec import UNSET, UnsetType

from fundledger.app.fund.answers.structs import LeftOut, NextCursor
from fundledger.fund.model.payout_file import FileFormat, FileNo, Outcome, ResultReport, message_id
from fundledger.fund.model.payout_file import PayoutFile as StoredFile
from fundledger.fund.model.requests import ChannelName
from fundledger.fund.payout_files.results import Imported
from fundledger.json_values import CurrencyCode, Exact, Instant, Text, about, time_text


class PayoutFile(Exact):
    channel: ChannelName
    file_no: FileNo
    currency: CurrencyCode
    format: Annotated[str, about(enum=list(get_args(FileFormat)))]
    lines: Annotated[int, about("number of payouts", minimum=1)]
    total: Annotated[int, about("sum of the payouts in minor units", minimum=1)]
    sha256: Annotated[str, about("digest of the content", pattern="^[0-9a-f]{64}$")]
    message_id: Annotated[str, about("`MsgId` of the file in ISO 20022 formats")]
    created_by: Annotated[str, about("the identity that made the file")]
    created_at: Instant
    total_text: Text = UNSET
    unnamed: (
        Annotated[int, about("number of due withdrawals that are in no file, because they have no payee", minimum=0)]
        | UnsetType
    ) = UNSET


class ListedPayoutFiles(msgspec.Struct):
    files: Annotated[list[PayoutFile], about("by number")]
    next_cursor: NextCursor
    unverified: LeftOut | UnsetType = UNSET


class PayoutResults(msgspec.Struct):
    channel: ChannelName
    file_no: FileNo
    counts: Annotated[dict[Outcome, int], about("number of lines by outcome")]
    lines: Annotated[list[ResultReport], about("the outcome of each line")]


def payout_file(file: StoredFile, unnamed: int | UnsetType = UNSET) -> PayoutFile:
    return PayoutFile(
        *(file.channel, file.file_no, file.currency, file.format, file.lines, file.total),
        file.digest.hex(),
        message_id(file.channel, file.file_no),
        file.created_by,
        time_text(file.created_at),
        unnamed=unnamed,
    )


def results(file: StoredFile, imported: Imported) -> PayoutResults:
    counts: dict[Outcome, int] = dict.fromkeys(get_args(Outcome), 0)
    for report in imported.reports:
        counts[report.outcome] += 1
    return PayoutResults(file.channel, file.file_no, counts, imported.reports)
