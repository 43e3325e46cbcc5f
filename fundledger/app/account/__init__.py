"""The account service: routes, request bodies, replies, and the worker process that posts vouchers."""
