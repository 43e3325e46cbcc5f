"""stub"""

from fundledger.app.reply import Reply


async def get_document(service, call):
    return Reply(200, b"{}")


async def get_page(service, call):
    return Reply(200, b"{}")
